-- What users are called, and the stream routes of templates and versions.

ALTER TABLE "user" ADD COLUMN first_name TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE "user" ADD COLUMN last_name  TEXT COLLATE "C" NOT NULL DEFAULT '';

-- http: a route; stream: a stream route. They share their ids and, within a service, their names.
ALTER TABLE route_template ADD COLUMN kind TEXT COLLATE "C" NOT NULL DEFAULT 'http';

-- A version of a stream service has these, one of another service has `routes`.
ALTER TABLE service_version ADD COLUMN stream_routes TEXT COLLATE "C" NOT NULL DEFAULT '[]';
