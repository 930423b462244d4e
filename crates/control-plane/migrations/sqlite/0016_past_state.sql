-- What stood in a group until a change replaced it, so that requests of the past can be explained. What stands now is
-- not here.
CREATE TABLE past_state (
    gateway_group_id      TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    -- `service`, `route` (of a service without a version) or `gateway_group`.
    noun                  TEXT   NOT NULL,
    id                    TEXT   NOT NULL,
    -- The first revision in which it was no more as it is here, and when that was, in unix seconds.
    until_revision        BIGINT NOT NULL,
    until_time            BIGINT NOT NULL,
    -- As in the table of the noun; null: it was not there.
    content               TEXT,
    name                  TEXT   NOT NULL DEFAULT '',
    -- Of a route: its service.
    service_id            TEXT   NOT NULL DEFAULT '',
    -- Of a service.
    runtime_configuration TEXT   NOT NULL DEFAULT '',
    service_version_id    TEXT   REFERENCES service_version (id),
    -- Of a service with a canary: which one, and its share in hundredths of a percent.
    rollout_id            TEXT   NOT NULL DEFAULT '',
    rollout_share         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (gateway_group_id, noun, id, until_revision)
);
CREATE INDEX past_state_by_revision ON past_state (gateway_group_id, until_revision);
CREATE INDEX past_state_by_version ON past_state (service_version_id);

-- The oldest revision of which everything is kept, and since when it stood, in unix seconds.
ALTER TABLE gateway_group ADD COLUMN past_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE gateway_group ADD COLUMN past_since_time BIGINT NOT NULL DEFAULT 0;
UPDATE gateway_group SET past_since = revision, past_since_time = CAST(strftime('%s', 'now') AS INTEGER);
