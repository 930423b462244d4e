-- Versions that come into a group under watch: beside the running one, or in its place.
CREATE TABLE rollout (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    gateway_group_id    TEXT COLLATE "C" NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    service_id          TEXT COLLATE "C" NOT NULL,
    -- `canary` or `guarded_publish`.
    kind                TEXT COLLATE "C" NOT NULL,
    service_version_id  TEXT COLLATE "C" NOT NULL REFERENCES service_version (id),
    baseline_version_id TEXT COLLATE "C" NOT NULL REFERENCES service_version (id),
    -- What was asked for, as JSON; secrets in conditions are sealed.
    plan                TEXT COLLATE "C" NOT NULL,
    -- In hundredths of a percent.
    share               BIGINT NOT NULL,
    step                BIGINT NOT NULL,
    step_since          BIGINT NOT NULL,
    -- What gateways had counted when the step began, as JSON.
    marks               TEXT COLLATE "C" NOT NULL,
    started_by          TEXT COLLATE "C" NOT NULL,
    started_at          BIGINT NOT NULL,
    started_number      BIGINT NOT NULL,
    -- Null: it is under way.
    ended_at            BIGINT,
    ended_by            TEXT COLLATE "C" NOT NULL,
    outcome             TEXT COLLATE "C" NOT NULL,
    reason              TEXT COLLATE "C" NOT NULL,
    -- What had been counted by its end, as JSON.
    evidence            TEXT COLLATE "C" NOT NULL,
    change_number       BIGINT NOT NULL
);
-- One at a time, whatever the rules say.
CREATE UNIQUE INDEX rollout_under_way ON rollout (gateway_group_id, service_id) WHERE ended_at IS NULL;
CREATE INDEX rollout_by_service ON rollout (gateway_group_id, service_id, started_number);

-- Why a version was published, where somebody or something said so.
ALTER TABLE publication ADD COLUMN note TEXT COLLATE "C" NOT NULL DEFAULT '';
