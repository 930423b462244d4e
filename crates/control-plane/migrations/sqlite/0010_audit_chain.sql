-- What each change changed, and a chain of digests over the audit log.

-- JSON, secrets masked.
ALTER TABLE audit_log ADD COLUMN changes TEXT NOT NULL DEFAULT '';
-- The place in the chain, counted from 1 without gaps; 0: a row from before there was one.
ALTER TABLE audit_log ADD COLUMN position BIGINT NOT NULL DEFAULT 0;
-- SHA-256 over the hash of the row before and everything this row says.
ALTER TABLE audit_log ADD COLUMN hash TEXT NOT NULL DEFAULT '';

-- Both ends of the chain; one row. The anchor stands for the rows that are not kept any more.
CREATE TABLE audit_chain (
    id              BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    anchor_position BIGINT NOT NULL,
    anchor_hash     TEXT   NOT NULL,
    head_position   BIGINT NOT NULL,
    head_hash       TEXT   NOT NULL
);
INSERT INTO audit_chain (id, anchor_position, anchor_hash, head_position, head_hash) VALUES (1, 0, '', 0, '');
