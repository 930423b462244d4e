-- What the running gateways say of themselves, and the life of the store in which revisions are counted.

-- It has one row.
CREATE TABLE store_epoch (
    -- Made once; a backup that is restored is the same store.
    store  TEXT    NOT NULL PRIMARY KEY,
    -- Raised by people who decide that gateways ahead of the store go back to it.
    number BIGINT  NOT NULL
);
INSERT INTO store_epoch (store, number) VALUES (lower(hex(randomblob(16))), 1);

CREATE TABLE gateway_instance (
    id               TEXT   NOT NULL PRIMARY KEY,
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    hostname         TEXT   NOT NULL,
    ip               TEXT   NOT NULL,
    version          TEXT   NOT NULL,
    -- Its last heartbeat, as JSON.
    heartbeat        TEXT   NOT NULL,
    -- Since when it serves something other than the newest revision, without getting closer.
    behind_since     BIGINT,
    heartbeat_at     BIGINT NOT NULL,
    created_at       BIGINT NOT NULL
);
CREATE INDEX gateway_instance_by_group ON gateway_instance (gateway_group_id);
