# The image that `migrate` in docker-compose.yml runs. `docker build -t mlops-db .`, then for example
# `docker run --rm -e POSTGRES_HOST=db.example.com mlops-db status`, or `... --entrypoint alembic mlops-db history`.

FROM python:3.13-slim AS build
# For a package index of your own: `docker build --build-arg PIP_INDEX_URL=...`.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/mlops-db
ENV PATH=/opt/mlops-db/bin:$PATH
WORKDIR /build
# The dependencies have their own layer, so that a change of the code does not download them again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        >dependencies.txt \
    && pip install --requirement dependencies.txt
COPY LICENSE README.md alembic.ini ./
COPY migrations migrations
COPY src src
RUN pip install --no-deps .

FROM python:3.13-slim
# Kubernetes' runAsNonRoot needs a number: it does not resolve names.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent mlops
COPY --from=build /opt/mlops-db /opt/mlops-db
ENV PATH=/opt/mlops-db/bin:$PATH
WORKDIR /app
# Links to alembic.ini and migrations/ of the package, so that `alembic` and `mlops-db init` run the same files.
RUN folder="$(python -c 'from mlops_db.project import alembic_ini; print(alembic_ini().parent)')" \
    && ln -s "$folder"/* ./
ENV ALEMBIC_CONFIG=/app/alembic.ini
USER 10001
# Process 1 ignores SIGTERM. SIGINT ends Python after the statement that is running.
STOPSIGNAL SIGINT
ENTRYPOINT ["mlops-db"]
CMD ["init"]
