-- What the stream routes of a group's services claim, in full: the same is claimed once, whatever the rules say.
CREATE TABLE stream_claim (
    gateway_group_id TEXT NOT NULL,
    service_id       TEXT NOT NULL,
    route_id         TEXT NOT NULL,
    claim            TEXT NOT NULL,
    PRIMARY KEY (gateway_group_id, claim),
    FOREIGN KEY (gateway_group_id, service_id) REFERENCES published_service (gateway_group_id, service_id)
        ON DELETE CASCADE
);
CREATE INDEX stream_claim_by_service ON stream_claim (gateway_group_id, service_id);
