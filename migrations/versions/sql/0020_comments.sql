-- Describe each function.
-- Revisions: 0020

COMMENT ON FUNCTION mlops_internal.register_series(text, text, text) IS
    $comment$Enter a series into the catalogue, unless it is there.$comment$;

COMMENT ON FUNCTION mlops_internal.register_new_series() IS
    $comment$Enter the series of the rows that a statement inserted.$comment$;

COMMENT ON FUNCTION mlops_internal.metric_partitions() IS
    $comment$The partitions of monitoring_metrics, oldest first, with their bounds.$comment$;

COMMENT ON FUNCTION mlops_internal.begin_maintenance() IS
    $comment$Wait for another maintenance to end, and let the next one wait.$comment$;

COMMENT ON FUNCTION mlops_internal.name_of_month(timestamptz) IS
    $comment$The name that the partition of a month is to get.$comment$;

COMMENT ON FUNCTION mlops_internal.create_next_partition(integer) IS
    $comment$Create the next month that is missing, up to months_ahead after this one; returns its name, or NULL if none is missing.$comment$;

COMMENT ON FUNCTION mlops_internal.move_earlier_month() IS
    $comment$Move the newest month out of monitoring_metrics_earlier into a partition of its own; returns its name, or NULL if nothing is to be moved.$comment$;

COMMENT ON FUNCTION mlops_internal.partitions_older_than(interval) IS
    $comment$The partitions all of whose rows are older than that.$comment$;

COMMENT ON FUNCTION mlops_internal.drop_partitions(interval) IS
    $comment$Drop the partitions all of whose rows are older than that; returns their names, or NULL if there are none.$comment$;

COMMENT ON FUNCTION mlops_internal.missing_series(integer) IS
    $comment$The series that rows are of, and that the catalogue lacks.$comment$;

COMMENT ON FUNCTION mlops_internal.register_missing_series() IS
    $comment$Enter them; returns how many, or NULL if none is missing.$comment$;

COMMENT ON FUNCTION mlops_internal.late_sequences() IS
    $comment$The sequences that would give ids that rows have already.$comment$;

COMMENT ON FUNCTION mlops_internal.advance_sequences() IS
    $comment$Let them go on after the rows; returns their names, or NULL if none is late.$comment$;

COMMENT ON PROCEDURE mlops_internal.maintain(interval, integer) IS
    $comment$Create partitions ahead, move rows into their months, drop what is older than keep (NULL: nothing), a transaction each; then register missing series and advance late sequences.$comment$;
