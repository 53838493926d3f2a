# What docker-compose.yaml relies on of the image postgres: user, database and password of the environment and
# the files of /docker-entrypoint-initdb.d at the first start, meanwhile on a socket alone; afterwards as postgres.
set -e
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
mkdir -p "$PGDATA"
chown postgres "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "${POSTGRES_PASSWORD:?}" > /tmp/password
  chown postgres /tmp/password
  as initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  as pg_ctl start -w -o "-c listen_addresses=''"
  as createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    as psql -v ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$file"
  done
  as pg_ctl stop -w -m fast
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -c listen_addresses='*'
