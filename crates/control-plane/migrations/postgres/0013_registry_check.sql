-- What gateway instances found when they looked at service registries: one row for each change.
CREATE TABLE registry_check (
    gateway_group_id    TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    service_registry_id TEXT COLLATE "C" NOT NULL,
    instance_id         TEXT COLLATE "C" NOT NULL,
    hostname            TEXT COLLATE "C" NOT NULL,
    -- 1 or 0.
    healthy             BIGINT NOT NULL,
    reason              TEXT COLLATE "C" NOT NULL,
    checked_at          BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, service_registry_id, instance_id, checked_at)
);
CREATE INDEX registry_check_by_time ON registry_check (gateway_group_id, service_registry_id, checked_at);
