-- Services that instances are asked to compile before they are published; there for as long as somebody waits.
CREATE TABLE preparation (
    gateway_group_id TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    service_id       TEXT   NOT NULL,
    -- Which preparation; a group has one at a time.
    id               TEXT   NOT NULL,
    content          TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, service_id)
);

-- Several services published to several groups as one.
CREATE TABLE release_set (
    id             TEXT   NOT NULL PRIMARY KEY,
    content        TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    created_number BIGINT NOT NULL
);
CREATE INDEX release_set_by_number ON release_set (created_number);
