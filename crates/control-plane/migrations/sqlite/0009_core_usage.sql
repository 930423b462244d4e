-- How many cores gateways used at a time, at most in each hour.
CREATE TABLE core_usage (
    -- Its beginning, in unix seconds.
    hour  BIGINT NOT NULL PRIMARY KEY,
    cores BIGINT NOT NULL
);
