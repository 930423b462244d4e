-- What a publish with an idempotency key leaves, so that the same call sent again finds it. Kept for a day.
CREATE TABLE publish_receipt (
    caller          TEXT   NOT NULL,
    idempotency_key TEXT   NOT NULL,
    -- Of the body; another body under this key is a mistake of the caller.
    wish_sha256     TEXT   NOT NULL,
    -- What was answered, as JSON.
    outcome         TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    created_number  BIGINT NOT NULL,
    PRIMARY KEY (caller, idempotency_key)
);
CREATE INDEX publish_receipt_by_time ON publish_receipt (created_at);
CREATE INDEX publish_receipt_by_number ON publish_receipt (created_number);
