-- Templates, versions, publications, and who may change them.
--
-- Ids are texts chosen by clients or made here; times are unix seconds; documents are JSON.
-- `change_number` rises with every write, so that lists have an order finer than seconds.
--
-- The same tables as of the same number for SQLite. Every text is compared and ordered by its bytes, as SQLite does,
-- whatever language the database was created for.

-- Its one row is also the queue in which changes wait for each other, on whichever control plane they are made.
CREATE TABLE change_counter (
    id    BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO change_counter (id, value) VALUES (1, 0);

CREATE TABLE gateway_group (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name           TEXT COLLATE "C" NOT NULL UNIQUE,
    labels         TEXT COLLATE "C" NOT NULL,
    content        TEXT COLLATE "C" NOT NULL,
    -- Raised in the transaction of every change of what the group's gateways serve.
    revision       BIGINT           NOT NULL DEFAULT 0,
    created_at     BIGINT           NOT NULL,
    updated_at     BIGINT           NOT NULL,
    created_number BIGINT           NOT NULL,
    change_number  BIGINT           NOT NULL
);

CREATE TABLE service_template (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name           TEXT COLLATE "C" NOT NULL UNIQUE,
    labels         TEXT COLLATE "C" NOT NULL,
    content        TEXT COLLATE "C" NOT NULL,
    created_at     BIGINT           NOT NULL,
    updated_at     BIGINT           NOT NULL,
    created_number BIGINT           NOT NULL,
    change_number  BIGINT           NOT NULL
);
CREATE INDEX service_template_by_change ON service_template (change_number);

CREATE TABLE route_template (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    service_id     TEXT COLLATE "C" NOT NULL REFERENCES service_template (id) ON DELETE CASCADE,
    name           TEXT COLLATE "C" NOT NULL,
    labels         TEXT COLLATE "C" NOT NULL,
    content        TEXT COLLATE "C" NOT NULL,
    created_at     BIGINT           NOT NULL,
    updated_at     BIGINT           NOT NULL,
    created_number BIGINT           NOT NULL,
    change_number  BIGINT           NOT NULL,
    UNIQUE (service_id, name)
);
CREATE INDEX route_template_by_change ON route_template (change_number);

-- A version outlives its template: history needs it, and its number must never come to mean something else.
CREATE TABLE service_version (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    service_id TEXT COLLATE "C" NOT NULL,
    version    TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    labels     TEXT COLLATE "C" NOT NULL,
    -- Everything but the routes, which lists of services must not have to read.
    content    TEXT COLLATE "C" NOT NULL,
    routes     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL,
    UNIQUE (service_id, version)
);

CREATE FUNCTION service_version_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a service version is immutable' USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER service_version_is_immutable BEFORE UPDATE ON service_version
FOR EACH ROW EXECUTE FUNCTION service_version_refuse();

CREATE TABLE published_service (
    gateway_group_id      TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id),
    service_id            TEXT COLLATE "C" NOT NULL,
    service_version_id    TEXT COLLATE "C" NOT NULL REFERENCES service_version (id),
    runtime_configuration TEXT COLLATE "C" NOT NULL,
    -- The group's revision when this row last changed: what a gateway that has an older one must be sent.
    revision              BIGINT           NOT NULL,
    publish_time          BIGINT           NOT NULL,
    created_at            BIGINT           NOT NULL,
    updated_at            BIGINT           NOT NULL,
    created_number        BIGINT           NOT NULL,
    change_number         BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, service_id)
);
CREATE INDEX published_service_by_revision ON published_service (gateway_group_id, revision);
CREATE INDEX published_service_by_change ON published_service (gateway_group_id, change_number);
CREATE INDEX published_service_by_service ON published_service (service_id);
CREATE INDEX published_service_by_version ON published_service (service_version_id);

-- What is gone, for gateways that still have it.
CREATE TABLE removed_service (
    gateway_group_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    service_id       TEXT COLLATE "C" NOT NULL,
    revision         BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, service_id)
);
CREATE INDEX removed_service_by_revision ON removed_service (gateway_group_id, revision);

-- "Version V became active in group G at T by U", kept for ever.
CREATE TABLE publication (
    id                 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    gateway_group_id   TEXT COLLATE "C" NOT NULL,
    service_id         TEXT COLLATE "C" NOT NULL,
    service_version_id TEXT COLLATE "C" NOT NULL REFERENCES service_version (id),
    revision           BIGINT           NOT NULL,
    published_by       TEXT COLLATE "C" NOT NULL,
    publish_time       BIGINT           NOT NULL,
    change_number      BIGINT           NOT NULL
);
CREATE INDEX publication_by_group ON publication (gateway_group_id, service_id, change_number);
CREATE INDEX publication_by_service ON publication (service_id, publish_time);

CREATE TABLE "user" (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    username      TEXT COLLATE "C" NOT NULL UNIQUE,
    password_hash TEXT COLLATE "C" NOT NULL,
    created_at    BIGINT           NOT NULL,
    updated_at    BIGINT           NOT NULL
);

-- Tokens are random, so a plain SHA-256 of one cannot be guessed back; the token itself is stored nowhere.
CREATE TABLE access_token (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    name         TEXT COLLATE "C" NOT NULL,
    token_sha256 TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at   BIGINT           NOT NULL
);

CREATE TABLE instance_token (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    gateway_group_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    token_sha256     TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at       BIGINT           NOT NULL
);
