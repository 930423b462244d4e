-- What is written straight to a gateway group: services without a version with their routes, and the objects beside
-- services (consumers, certificates …). The same tables as of the same number for SQLite.

-- A published service has its own name, description and labels, and need not have a version (then its routes are in
-- group_route). `content` is description, kind and plugins; where there is a version, kind and plugins are its own.
ALTER TABLE published_service
    ALTER COLUMN service_version_id DROP NOT NULL,
    ADD COLUMN name    TEXT COLLATE "C",
    ADD COLUMN labels  TEXT COLLATE "C",
    ADD COLUMN content TEXT COLLATE "C";
UPDATE published_service SET name = v.name, labels = v.labels, content = v.content
FROM service_version v WHERE v.id = published_service.service_version_id;
ALTER TABLE published_service
    ALTER COLUMN name    SET NOT NULL,
    ALTER COLUMN labels  SET NOT NULL,
    ALTER COLUMN content SET NOT NULL;

-- Routes and stream routes of services without a version.
CREATE TABLE group_route (
    gateway_group_id TEXT COLLATE "C" NOT NULL,
    kind             TEXT COLLATE "C" NOT NULL CHECK (kind IN ('http', 'stream')),
    id               TEXT COLLATE "C" NOT NULL,
    service_id       TEXT COLLATE "C" NOT NULL,
    name             TEXT COLLATE "C" NOT NULL,
    labels           TEXT COLLATE "C" NOT NULL,
    content          TEXT COLLATE "C" NOT NULL,
    created_at       BIGINT           NOT NULL,
    updated_at       BIGINT           NOT NULL,
    created_number   BIGINT           NOT NULL,
    change_number    BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, id),
    FOREIGN KEY (gateway_group_id, service_id) REFERENCES published_service (gateway_group_id, service_id)
        ON DELETE CASCADE
);
CREATE INDEX group_route_by_service ON group_route (gateway_group_id, service_id, kind, change_number);
CREATE INDEX group_route_by_change ON group_route (gateway_group_id, kind, change_number);

-- Everything else a group keeps: consumers and credentials, certificates, global rules, plugin metadata, secret
-- providers, further upstreams of services. Any of them may hold a secret, so all documents are encrypted.
CREATE TABLE group_object (
    gateway_group_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id),
    kind             TEXT COLLATE "C" NOT NULL,
    -- What the object belongs to: the consumer of a credential, the service of an upstream; empty: the group.
    owner            TEXT COLLATE "C" NOT NULL,
    id               TEXT COLLATE "C" NOT NULL,
    name             TEXT COLLATE "C" NOT NULL,
    labels           TEXT COLLATE "C" NOT NULL,
    sealed           TEXT COLLATE "C" NOT NULL,
    -- What no two objects of a kind may share in one group: a digest of the certificate, of the key.
    mark             TEXT COLLATE "C",
    -- The group's revision when this row last changed.
    revision         BIGINT           NOT NULL,
    created_at       BIGINT           NOT NULL,
    updated_at       BIGINT           NOT NULL,
    created_number   BIGINT           NOT NULL,
    change_number    BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, owner, id),
    UNIQUE (gateway_group_id, kind, mark)
);
CREATE INDEX group_object_by_change ON group_object (gateway_group_id, kind, owner, change_number);
CREATE INDEX group_object_by_revision ON group_object (gateway_group_id, revision);

-- What is gone, for gateways that still have it.
CREATE TABLE removed_object (
    gateway_group_id TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    kind             TEXT COLLATE "C" NOT NULL,
    owner            TEXT COLLATE "C" NOT NULL,
    id               TEXT COLLATE "C" NOT NULL,
    revision         BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, kind, owner, id)
);
CREATE INDEX removed_object_by_revision ON removed_object (gateway_group_id, revision);

-- A known text under the secret key: tells a lost or wrong key at start, before anything is written with it.
CREATE TABLE secret_key_check (
    id     BIGINT           NOT NULL PRIMARY KEY CHECK (id = 1),
    sealed TEXT COLLATE "C" NOT NULL
);
