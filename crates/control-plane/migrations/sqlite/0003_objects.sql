-- What is written straight to a gateway group: services without a version with their routes, and the objects beside
-- services (consumers, certificates …).

-- A published service has its own name, description and labels, and need not have a version.
CREATE TABLE published_service_new (
    gateway_group_id      TEXT   NOT NULL REFERENCES gateway_group (id),
    service_id            TEXT   NOT NULL,
    -- None: a service without a version; its routes are in group_route.
    service_version_id    TEXT   REFERENCES service_version (id),
    name                  TEXT   NOT NULL,
    labels                TEXT   NOT NULL,
    -- Description, kind and plugins; where there is a version, kind and plugins are the version's.
    content               TEXT   NOT NULL,
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
INSERT INTO published_service_new
    (gateway_group_id, service_id, service_version_id, name, labels, content, runtime_configuration, revision,
     publish_time, created_at, updated_at, created_number, change_number)
SELECT p.gateway_group_id, p.service_id, p.service_version_id, v.name, v.labels, v.content, p.runtime_configuration,
       p.revision, p.publish_time, p.created_at, p.updated_at, p.created_number, p.change_number
FROM published_service p JOIN service_version v ON v.id = p.service_version_id;
DROP TABLE published_service;
ALTER TABLE published_service_new RENAME TO published_service;
CREATE INDEX published_service_by_revision ON published_service (gateway_group_id, revision);
CREATE INDEX published_service_by_change ON published_service (gateway_group_id, change_number);
CREATE INDEX published_service_by_service ON published_service (service_id);
CREATE INDEX published_service_by_version ON published_service (service_version_id);

-- Routes and stream routes of services without a version.
CREATE TABLE group_route (
    gateway_group_id TEXT   NOT NULL,
    kind             TEXT   NOT NULL CHECK (kind IN ('http', 'stream')),
    id               TEXT   NOT NULL,
    service_id       TEXT   NOT NULL,
    name             TEXT   NOT NULL,
    labels           TEXT   NOT NULL,
    content          TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    created_number   BIGINT NOT NULL,
    change_number    BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, id),
    FOREIGN KEY (gateway_group_id, service_id) REFERENCES published_service (gateway_group_id, service_id)
        ON DELETE CASCADE
);
CREATE INDEX group_route_by_service ON group_route (gateway_group_id, service_id, kind, change_number);
CREATE INDEX group_route_by_change ON group_route (gateway_group_id, kind, change_number);

-- Everything else a group keeps: consumers and credentials, certificates, global rules, plugin metadata, secret
-- providers, further upstreams of services. Any of them may hold a secret, so all documents are encrypted.
CREATE TABLE group_object (
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id),
    kind             TEXT   NOT NULL,
    -- What the object belongs to: the consumer of a credential, the service of an upstream; empty: the group.
    owner            TEXT   NOT NULL,
    id               TEXT   NOT NULL,
    name             TEXT   NOT NULL,
    labels           TEXT   NOT NULL,
    sealed           TEXT   NOT NULL,
    -- What no two objects of a kind may share in one group: a digest of the certificate, of the key.
    mark             TEXT,
    -- The group's revision when this row last changed.
    revision         BIGINT NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    created_number   BIGINT NOT NULL,
    change_number    BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, owner, id),
    UNIQUE (gateway_group_id, kind, mark)
);
CREATE INDEX group_object_by_change ON group_object (gateway_group_id, kind, owner, change_number);
CREATE INDEX group_object_by_revision ON group_object (gateway_group_id, revision);

-- What is gone, for gateways that still have it.
CREATE TABLE removed_object (
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    kind             TEXT   NOT NULL,
    owner            TEXT   NOT NULL,
    id               TEXT   NOT NULL,
    revision         BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, owner, id)
);
CREATE INDEX removed_object_by_revision ON removed_object (gateway_group_id, revision);

-- A known text under the secret key: tells a lost or wrong key at start, before anything is written with it.
CREATE TABLE secret_key_check (
    id     BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed TEXT   NOT NULL
);
