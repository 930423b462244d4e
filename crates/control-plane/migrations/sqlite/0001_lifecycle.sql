-- Templates, versions, publications, and who may change them.
--
-- Ids are texts chosen by clients or made here; times are unix seconds; documents are JSON.
-- `change_number` rises with every write, so that lists have an order finer than seconds.

CREATE TABLE change_counter (
    id    INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT  NOT NULL
);
INSERT INTO change_counter (id, value) VALUES (1, 0);

CREATE TABLE gateway_group (
    id             TEXT   NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL UNIQUE,
    labels         TEXT   NOT NULL,
    content        TEXT   NOT NULL,
    -- Raised in the transaction of every change of what the group's gateways serve.
    revision       BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    created_number BIGINT NOT NULL,
    change_number  BIGINT NOT NULL
);

CREATE TABLE service_template (
    id             TEXT   NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL UNIQUE,
    labels         TEXT   NOT NULL,
    content        TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    created_number BIGINT NOT NULL,
    change_number  BIGINT NOT NULL
);
CREATE INDEX service_template_by_change ON service_template (change_number);

CREATE TABLE route_template (
    id             TEXT   NOT NULL PRIMARY KEY,
    service_id     TEXT   NOT NULL REFERENCES service_template (id) ON DELETE CASCADE,
    name           TEXT   NOT NULL,
    labels         TEXT   NOT NULL,
    content        TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    created_number BIGINT NOT NULL,
    change_number  BIGINT NOT NULL,
    UNIQUE (service_id, name)
);
CREATE INDEX route_template_by_change ON route_template (change_number);

-- A version outlives its template: history needs it, and its number must never come to mean something else.
CREATE TABLE service_version (
    id         TEXT   NOT NULL PRIMARY KEY,
    service_id TEXT   NOT NULL,
    version    TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    labels     TEXT   NOT NULL,
    -- Everything but the routes, which lists of services must not have to read.
    content    TEXT   NOT NULL,
    routes     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (service_id, version)
);

CREATE TRIGGER service_version_is_immutable BEFORE UPDATE ON service_version
BEGIN
    SELECT RAISE(ABORT, 'a service version is immutable');
END;

CREATE TABLE published_service (
    gateway_group_id      TEXT   NOT NULL REFERENCES gateway_group (id),
    service_id            TEXT   NOT NULL,
    service_version_id    TEXT   NOT NULL REFERENCES service_version (id),
    runtime_configuration TEXT   NOT NULL,
    -- The group's revision when this row last changed: what a gateway that has an older one must be sent.
    revision              BIGINT NOT NULL,
    publish_time          BIGINT NOT NULL,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    created_number        BIGINT NOT NULL,
    change_number         BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, service_id)
);
CREATE INDEX published_service_by_revision ON published_service (gateway_group_id, revision);
CREATE INDEX published_service_by_change ON published_service (gateway_group_id, change_number);
CREATE INDEX published_service_by_service ON published_service (service_id);
CREATE INDEX published_service_by_version ON published_service (service_version_id);

-- What is gone, for gateways that still have it.
CREATE TABLE removed_service (
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    service_id       TEXT   NOT NULL,
    revision         BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, service_id)
);
CREATE INDEX removed_service_by_revision ON removed_service (gateway_group_id, revision);

-- "Version V became active in group G at T by U", kept for ever.
CREATE TABLE publication (
    id                 TEXT   NOT NULL PRIMARY KEY,
    gateway_group_id   TEXT   NOT NULL,
    service_id         TEXT   NOT NULL,
    service_version_id TEXT   NOT NULL REFERENCES service_version (id),
    revision           BIGINT NOT NULL,
    published_by       TEXT   NOT NULL,
    publish_time       BIGINT NOT NULL,
    change_number      BIGINT NOT NULL
);
CREATE INDEX publication_by_group ON publication (gateway_group_id, service_id, change_number);
CREATE INDEX publication_by_service ON publication (service_id, publish_time);

CREATE TABLE "user" (
    id            TEXT   NOT NULL PRIMARY KEY,
    username      TEXT   NOT NULL UNIQUE,
    password_hash TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);

-- Tokens are random, so a plain SHA-256 of one cannot be guessed back; the token itself is stored nowhere.
CREATE TABLE access_token (
    id           TEXT   NOT NULL PRIMARY KEY,
    user_id      TEXT   NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    name         TEXT   NOT NULL,
    token_sha256 TEXT   NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL
);

CREATE TABLE instance_token (
    id               TEXT   NOT NULL PRIMARY KEY,
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    token_sha256     TEXT   NOT NULL UNIQUE,
    created_at       BIGINT NOT NULL
);
