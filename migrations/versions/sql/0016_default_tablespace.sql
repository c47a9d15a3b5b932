-- Clear default_tablespace if it names the database's own: PostgreSQL refuses that name for partitioned tables and
-- their indexes.
-- Until the transaction ends.
-- Revisions: 0016, 0017 (downgrade), 0018

SELECT set_config('default_tablespace', '', true)
  FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = d.dattablespace
 WHERE d.datname = current_database() AND t.spcname = current_setting('default_tablespace');
