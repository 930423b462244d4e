-- The internal certificate authority, and the certificates with which gateways prove their group.

-- It has one row.
CREATE TABLE authority (
    id          BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    -- PEM.
    certificate TEXT   NOT NULL,
    -- Its private key in PEM, encrypted with the secret key of the store.
    sealed_key  TEXT   NOT NULL
);

CREATE TABLE instance_certificate (
    id                 TEXT   NOT NULL PRIMARY KEY,
    gateway_group_id   TEXT   NOT NULL REFERENCES gateway_group (id) ON DELETE CASCADE,
    -- Of its DER, in hexadecimal; the certificate and its key are answered once and not kept.
    certificate_sha256 TEXT   NOT NULL UNIQUE,
    expires_at         BIGINT NOT NULL,
    created_at         BIGINT NOT NULL
);
CREATE INDEX instance_certificate_by_group ON instance_certificate (gateway_group_id);

-- When the certificate that an instance came with runs out; null: it came with a token.
ALTER TABLE gateway_instance ADD COLUMN certificate_expires_at BIGINT;
