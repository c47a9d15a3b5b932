#!/usr/bin/env bash
# What a superuser does before `mlops-db distribute`: the database with the extension on each node, the workers, and two
# rights that nobody needs. What is done already is left as it is, so this may run at every start.
#
#     prepare.sh COORDINATOR WORKER...      the hosts; psql's variables say the rest: PGUSER, PGPASSWORD, MLOPS_DB_NAME
set -euo pipefail

coordinator=$1
workers=("${@:2}")
database=${MLOPS_DB_NAME:-mlops}
export PGOPTIONS="--client-min-messages=warning"

run() {
    psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --output=/dev/null --host="$1" "${@:2}"
}

for node in "$coordinator" "${workers[@]}"; do
    run "$node" --dbname=postgres --set=name="$database" <<'SQL'
SELECT format('CREATE DATABASE %I', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
    # Whoever reads time_partitions crashes the server, because two partitions of the metrics have bounds without an end.
    run "$node" --dbname="$database" <<'SQL'
CREATE EXTENSION IF NOT EXISTS citus;
REVOKE SELECT ON pg_catalog.time_partitions FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.time_partition_range(regclass) FROM PUBLIC;
SQL
done

run "$coordinator" --dbname="$database" --set=host="$coordinator" <<'SQL'
SELECT citus_set_coordinator_host(:'host', 5432);
SQL
for worker in "${workers[@]}"; do
    run "$coordinator" --dbname="$database" --set=host="$worker" <<'SQL'
SELECT citus_add_node(:'host', 5432);
SQL
done
run "$coordinator" --dbname="$database" --set=host="$coordinator" <<'SQL'
SELECT citus_set_node_property(:'host', 5432, 'shouldhaveshards', false);
SQL
echo "$coordinator coordinates ${workers[*]} in database $database"
