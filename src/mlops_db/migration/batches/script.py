"""The batches of `--sql`: a block that commits each of them, for psql."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.migration.batches.job import FIRST_SIZE, LARGEST_CHANGE, LEAST_KEY, LEAST_SIZE, REST
from mlops_db.migration.batches.positions import forget
from mlops_db.migration.blockers import OPEN_TRANSACTIONS
from mlops_db.migration.progress import LOG_EVERY_S
from mlops_db.migration.retry import FIRST_PAUSE_S, LAST_PAUSE_S
from mlops_db.migration.statements import dollar_quoted, literal
from mlops_db.revisions.tables import POSITIONS_TABLE
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.guests import REFUSE_GUESTS

if TYPE_CHECKING:
    from mlops_db.migration.batches.job import Job

# Set in the step's transaction, and so only if that was committed: psql may continue after an error.
_BEGUN = "mlops_db.batches"

_BATCHES = """
DECLARE
    job constant text := {job};
    target_s constant float := {target_s};
    retry_for_s constant float := {retry_for_s};
    waiting text[];
    names text;
    began timestamptz := clock_timestamp();
    reported timestamptz := began;
    started timestamptz;
    failing_since timestamptz;
    pause_s float := 0.01;
    before_first bigint;
    started_after bigint;
    done bigint;
    greatest_key bigint;
    upto bigint;
    size bigint := {first_size};
    changed bigint;
    changed_rows bigint := 0;
    changed_before bigint;
    took_s float;
    failure text;
BEGIN
    IF current_setting('{begun}', true) IS DISTINCT FROM job THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = job || ': the transaction before it failed; no row was changed',
            HINT = 'See the error before this one.';
    END IF;
    SELECT p.first, p.position, p.last, p.changed_rows INTO before_first, done, greatest_key, changed_rows
      FROM {positions} AS p WHERE {mine};
    IF FOUND THEN
        RAISE NOTICE '%: goes on after % %, % rows are changed', job, {key}, done, changed_rows;
    ELSE
        -- Rows of transactions that are open now are not seen yet.
        waiting := ARRAY(SELECT t.transaction FROM ({open_transactions}) AS t);
        WHILE waiting <> '{{}}' LOOP
            SELECT array_agg(t.transaction), string_agg(t.name, '; ') INTO waiting, names
              FROM ({open_transactions}) AS t WHERE t.transaction = ANY (waiting);
            EXIT WHEN waiting IS NULL;
            IF clock_timestamp() - began > make_interval(secs => retry_for_s) THEN
                RAISE lock_not_available USING
                    MESSAGE = format('%s waits for transactions that were open when it began, because rows of theirs'
                                     ' may be still to come: %s; nothing was changed', job, names),
                    HINT = 'Let them end, or end those sessions, then run the script again.';
            END IF;
            IF clock_timestamp() - reported > interval '{log_every_s} s' THEN
                reported := clock_timestamp();
                RAISE NOTICE 'still waiting for %', names;
            END IF;
            COMMIT; -- nobody has to wait for this transaction meanwhile
            PERFORM pg_sleep(pause_s);
            pause_s := least(2 * pause_s, 0.5);
        END LOOP;
        EXECUTE {find_keys} INTO before_first, greatest_key;
        IF before_first = {least_key} THEN
            RAISE numeric_value_out_of_range USING
                MESSAGE = format('%s: %s %s is the least bigint, and no batch begins before it',
                                 job, {key}, before_first),
                HINT = 'Give that row another key.';
        END IF;
        before_first := coalesce(before_first - 1, 0);
        greatest_key := coalesce(greatest_key, 0);
        done := before_first;
        changed_rows := 0;
        {store};
        COMMIT;
    END IF;
    started := clock_timestamp();
    reported := started;
    started_after := done;
    changed_before := changed_rows;
    WHILE done < greatest_key LOOP
        began := clock_timestamp();
        BEGIN
            EXECUTE {refuse_guests};
            EXECUTE {bound_waits};
            SET LOCAL enable_sort = off; -- without statistics, each batch would sort all rows that are left
            EXECUTE {find_end} INTO upto USING done, greatest_key, size;
            SET LOCAL enable_sort TO DEFAULT;
            changed := 0;
            IF upto IS NULL THEN
                upto := greatest_key;
            ELSE
                EXECUTE {statement} USING done, upto;
                GET DIAGNOSTICS changed = ROW_COUNT;
            END IF;
            {move};
            IF NOT FOUND THEN
                RAISE object_not_in_prerequisite_state USING
                    MESSAGE = job || ': another session has moved its position; this batch was rolled back',
                    HINT = 'Find out who else migrates this database. Then run the script again.';
            END IF;
            failure := NULL;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            failure := SQLERRM;
        END;
        COMMIT;
        IF failure IS NOT NULL THEN
            size := greatest(size / {largest_change}, 1);
            IF failing_since IS NULL THEN
                failing_since := began;
                pause_s := {first_pause_s};
            ELSIF clock_timestamp() - failing_since > make_interval(secs => retry_for_s) THEN
                RAISE lock_not_available USING
                    MESSAGE = format('%s: %s; this batch was rolled back, those before it are done', job, failure),
                    HINT = 'End the sessions that use these rows, or let them finish, then run the script again: '
                           'it resumes where it stopped.';
            END IF;
            RAISE NOTICE '%: %; next try in % s', job, failure, pause_s;
            PERFORM pg_sleep(pause_s * (0.5 + random() / 2));
            pause_s := least(2 * pause_s, {last_pause_s});
            COMMIT;
            CONTINUE;
        END IF;
        failing_since := NULL;
        done := upto;
        changed_rows := changed_rows + changed;
        took_s := greatest(extract(epoch FROM clock_timestamp() - began), 0.001);
        size := greatest(least(size * target_s / took_s, size * {largest_change}),
                         least(size, greatest(size / {largest_change}, {least_size})))::bigint;
        IF clock_timestamp() - reported > interval '{log_every_s} s' AND done < greatest_key THEN
            reported := clock_timestamp();
            took_s := extract(epoch FROM reported - started);
            RAISE NOTICE '%: % rows, % a second, % %%, about % s left', job, changed_rows,
                         round((changed_rows - changed_before) / took_s),
                         floor(100 * (done - before_first)::float / (greatest_key - before_first)),
                         round(took_s * (greatest_key - done) / (done - started_after));
            took_s := extract(epoch FROM reported - began);
        END IF;
        IF done < greatest_key THEN
            PERFORM pg_sleep(took_s * {rest});
            COMMIT;
        END IF;
    END LOOP;
END """


def begin_in_transaction(job: Job) -> str:
    """SQL that notes that the step has begun, in its transaction."""
    return f"SET {_BEGUN} = {literal(job.name)};"


def run(job: Job, *, retry_for_ms: int) -> str:
    """The block that runs the batches, outside of a transaction."""
    body = _BATCHES.format(
        job=literal(job.name),
        target_s=job.target_ms / 1000,
        retry_for_s=retry_for_ms / 1000,
        first_size=FIRST_SIZE,
        least_key=LEAST_KEY,
        least_size=LEAST_SIZE,
        largest_change=LARGEST_CHANGE,
        rest=REST,
        first_pause_s=FIRST_PAUSE_S,
        last_pause_s=LAST_PAUSE_S,
        log_every_s=LOG_EVERY_S,
        begun=_BEGUN,
        positions=POSITIONS_TABLE,
        mine=job.mine,
        key=literal(job.key),
        open_transactions=OPEN_TRANSACTIONS,
        find_keys=literal(job.find_keys()),
        store=job.store("before_first", "greatest_key"),
        refuse_guests=literal(REFUSE_GUESTS),
        bound_waits=literal(BOUND_WAITS_ON_WORKERS),
        find_end=literal(job.find_end("$1", "$2", "$3")),
        statement=literal(job.statement.bind("$1", "$2")),
        move=job.move("done", "upto", "changed"),
    )
    return f"DO {dollar_quoted(body)};"


def end_in_transaction(job: Job) -> str:
    """SQL for the transaction that moves alembic_version: it fails unless all batches are done, and forgets the job."""
    body = f"""
BEGIN
    IF NOT EXISTS (SELECT FROM {POSITIONS_TABLE} AS p WHERE {job.mine} AND p.position >= p.last) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = {literal(f"{job.name} is not finished")},
            HINT = 'Run the script again: it resumes where it stopped.';
    END IF;
END """
    return f"RESET {_BEGUN};\nDO {dollar_quoted(body)};\n{forget([job.revision])}"
