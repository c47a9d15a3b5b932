-- Do all steps, each in a transaction. A procedure that commits has no search path of its own, so it names every schema.
-- Revisions: 0020

CREATE PROCEDURE mlops_internal.maintain(keep interval DEFAULT NULL, months_ahead integer DEFAULT 3)
LANGUAGE plpgsql
AS $procedure$
BEGIN
    LOOP
        -- Not longer than anybody notices: whoever waits for the table keeps all others waiting behind.
        SET LOCAL lock_timeout = '300ms';
        EXIT WHEN mlops_internal.create_next_partition(months_ahead) IS NULL;
        COMMIT;
    END LOOP;
    COMMIT;
    LOOP
        SET LOCAL lock_timeout = '300ms';
        EXIT WHEN mlops_internal.move_earlier_month() IS NULL;
        COMMIT;
    END LOOP;
    COMMIT;
    SET LOCAL lock_timeout = '300ms';
    PERFORM mlops_internal.drop_partitions(keep);
    COMMIT;
    SET LOCAL lock_timeout = '300ms';
    PERFORM mlops_internal.register_missing_series();
    PERFORM mlops_internal.advance_sequences();
END
$procedure$;

REVOKE EXECUTE ON ROUTINE mlops_internal.maintain(interval, integer) FROM PUBLIC;
