-- Lists of a hundred thousand: how many there are is kept, not counted, and every order of a list is an index. The same
-- tables as of the same number for SQLite.

-- How many objects there are of a noun, in a gateway group or (with an empty one) in all. Kept by triggers, so that no
-- writing and no cascade can forget it; what there is none of has no row.
CREATE TABLE object_count (
    gateway_group_id TEXT COLLATE "C" NOT NULL,
    noun             TEXT COLLATE "C" NOT NULL,
    total            BIGINT           NOT NULL,
    PRIMARY KEY (gateway_group_id, noun)
);
INSERT INTO object_count (gateway_group_id, noun, total)
SELECT '', 'service_template', COUNT(*) FROM service_template HAVING COUNT(*) > 0
UNION ALL SELECT '', kind || '_route', COUNT(*) FROM route_template GROUP BY kind
UNION ALL SELECT '', 'audit_log', COUNT(*) FROM audit_log HAVING COUNT(*) > 0
UNION ALL SELECT gateway_group_id, 'service', COUNT(*) FROM published_service GROUP BY gateway_group_id
UNION ALL SELECT gateway_group_id, kind || '_route', COUNT(*) FROM group_route GROUP BY gateway_group_id, kind
UNION ALL SELECT gateway_group_id, kind, COUNT(*) FROM group_object GROUP BY gateway_group_id, kind;

CREATE FUNCTION object_count_change(group_id TEXT, counted TEXT, operation TEXT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF operation = 'INSERT' THEN
        INSERT INTO object_count (gateway_group_id, noun, total) VALUES (group_id, counted, 1)
        ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = object_count.total + 1;
    ELSE
        UPDATE object_count SET total = total - 1 WHERE gateway_group_id = group_id AND noun = counted;
        DELETE FROM object_count WHERE gateway_group_id = group_id AND noun = counted AND total = 0;
    END IF;
END
$$;

-- Of a table whose objects belong to no group: its noun is the table's name.
CREATE FUNCTION object_count_everywhere() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM object_count_change('', TG_TABLE_NAME, TG_OP);
    RETURN NULL;
END
$$;
CREATE TRIGGER service_template_is_counted AFTER INSERT OR DELETE ON service_template
FOR EACH ROW EXECUTE FUNCTION object_count_everywhere();
CREATE TRIGGER audit_log_is_counted AFTER INSERT OR DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION object_count_everywhere();

CREATE FUNCTION route_template_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM object_count_change('', COALESCE(NEW.kind, OLD.kind) || '_route', TG_OP);
    RETURN NULL;
END
$$;
CREATE TRIGGER route_template_is_counted AFTER INSERT OR DELETE ON route_template
FOR EACH ROW EXECUTE FUNCTION route_template_count();

CREATE FUNCTION published_service_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM object_count_change(COALESCE(NEW.gateway_group_id, OLD.gateway_group_id), 'service', TG_OP);
    RETURN NULL;
END
$$;
CREATE TRIGGER published_service_is_counted AFTER INSERT OR DELETE ON published_service
FOR EACH ROW EXECUTE FUNCTION published_service_count();

CREATE FUNCTION group_route_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM object_count_change(
        COALESCE(NEW.gateway_group_id, OLD.gateway_group_id), COALESCE(NEW.kind, OLD.kind) || '_route', TG_OP
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER group_route_is_counted AFTER INSERT OR DELETE ON group_route
FOR EACH ROW EXECUTE FUNCTION group_route_count();

CREATE FUNCTION group_object_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM object_count_change(
        COALESCE(NEW.gateway_group_id, OLD.gateway_group_id), COALESCE(NEW.kind, OLD.kind), TG_OP
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER group_object_is_counted AFTER INSERT OR DELETE ON group_object
FOR EACH ROW EXECUTE FUNCTION group_object_count();

-- When a version of the service became active last, anywhere; it was looked up for every template of a list.
ALTER TABLE service_template ADD COLUMN last_published BIGINT;
UPDATE service_template
SET last_published = (SELECT MAX(publish_time) FROM publication WHERE publication.service_id = service_template.id);

-- Every order of a list, with the id that tells apart what was written at once: an index is walked either way.
DROP INDEX service_template_by_change;
DROP INDEX route_template_by_change;
DROP INDEX published_service_by_change;
DROP INDEX group_route_by_change;
CREATE INDEX service_template_by_change ON service_template (change_number, id);
CREATE INDEX service_template_by_creation ON service_template (created_number, id);
CREATE INDEX service_template_by_name ON service_template (name, id);
CREATE INDEX service_template_by_publish ON service_template (last_published NULLS FIRST, change_number, id);
CREATE INDEX route_template_by_change ON route_template (kind, change_number, id);
CREATE INDEX route_template_by_creation ON route_template (kind, created_number, id);
CREATE INDEX route_template_by_name ON route_template (kind, name, id);
CREATE INDEX route_template_of_service ON route_template (kind, service_id, change_number, id);
CREATE INDEX published_service_by_change ON published_service (gateway_group_id, change_number, service_id);
CREATE INDEX published_service_by_creation ON published_service (gateway_group_id, created_number, service_id);
CREATE INDEX published_service_by_name ON published_service (gateway_group_id, name, service_id);
CREATE INDEX published_service_by_publish ON published_service (gateway_group_id, publish_time, change_number, service_id);
CREATE INDEX group_route_by_change ON group_route (gateway_group_id, kind, change_number, id);
CREATE INDEX group_route_by_creation ON group_route (gateway_group_id, kind, created_number, id);
CREATE INDEX group_route_by_name ON group_route (gateway_group_id, kind, name, id);
CREATE INDEX group_object_of_kind ON group_object (gateway_group_id, kind, change_number, id);
CREATE INDEX group_object_by_creation ON group_object (gateway_group_id, kind, created_number, id);
CREATE INDEX group_object_by_name ON group_object (gateway_group_id, kind, name, id);
-- Of the objects of a group, these alone are looked for from what they belong to.
CREATE INDEX group_object_of_service ON group_object (gateway_group_id, owner) WHERE kind = 'service_upstream';
