-- Lists of a hundred thousand: how many there are is kept, not counted, and every order of a list is an index.

-- How many objects there are of a noun, in a gateway group or (with an empty one) in all. Kept by triggers, so that no
-- writing and no cascade can forget it; what there is none of has no row.
CREATE TABLE object_count (
    gateway_group_id TEXT   NOT NULL,
    noun             TEXT   NOT NULL,
    total            BIGINT NOT NULL,
    PRIMARY KEY (gateway_group_id, noun)
);
INSERT INTO object_count (gateway_group_id, noun, total)
SELECT '', 'service_template', COUNT(*) FROM service_template HAVING COUNT(*) > 0
UNION ALL SELECT '', kind || '_route', COUNT(*) FROM route_template GROUP BY kind
UNION ALL SELECT '', 'audit_log', COUNT(*) FROM audit_log HAVING COUNT(*) > 0
UNION ALL SELECT gateway_group_id, 'service', COUNT(*) FROM published_service GROUP BY gateway_group_id
UNION ALL SELECT gateway_group_id, kind || '_route', COUNT(*) FROM group_route GROUP BY gateway_group_id, kind
UNION ALL SELECT gateway_group_id, kind, COUNT(*) FROM group_object GROUP BY gateway_group_id, kind;

CREATE TRIGGER service_template_counted AFTER INSERT ON service_template BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES ('', 'service_template', 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER service_template_uncounted AFTER DELETE ON service_template BEGIN
    UPDATE object_count SET total = total - 1 WHERE gateway_group_id = '' AND noun = 'service_template';
    DELETE FROM object_count WHERE gateway_group_id = '' AND noun = 'service_template' AND total = 0;
END;

CREATE TRIGGER route_template_counted AFTER INSERT ON route_template BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES ('', NEW.kind || '_route', 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER route_template_uncounted AFTER DELETE ON route_template BEGIN
    UPDATE object_count SET total = total - 1 WHERE gateway_group_id = '' AND noun = OLD.kind || '_route';
    DELETE FROM object_count WHERE gateway_group_id = '' AND noun = OLD.kind || '_route' AND total = 0;
END;

CREATE TRIGGER audit_log_counted AFTER INSERT ON audit_log BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES ('', 'audit_log', 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER audit_log_uncounted AFTER DELETE ON audit_log BEGIN
    UPDATE object_count SET total = total - 1 WHERE gateway_group_id = '' AND noun = 'audit_log';
    DELETE FROM object_count WHERE gateway_group_id = '' AND noun = 'audit_log' AND total = 0;
END;

CREATE TRIGGER published_service_counted AFTER INSERT ON published_service BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES (NEW.gateway_group_id, 'service', 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER published_service_uncounted AFTER DELETE ON published_service BEGIN
    UPDATE object_count SET total = total - 1
    WHERE gateway_group_id = OLD.gateway_group_id AND noun = 'service';
    DELETE FROM object_count
    WHERE gateway_group_id = OLD.gateway_group_id AND noun = 'service' AND total = 0;
END;

CREATE TRIGGER group_route_counted AFTER INSERT ON group_route BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES (NEW.gateway_group_id, NEW.kind || '_route', 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER group_route_uncounted AFTER DELETE ON group_route BEGIN
    UPDATE object_count SET total = total - 1
    WHERE gateway_group_id = OLD.gateway_group_id AND noun = OLD.kind || '_route';
    DELETE FROM object_count
    WHERE gateway_group_id = OLD.gateway_group_id AND noun = OLD.kind || '_route' AND total = 0;
END;

CREATE TRIGGER group_object_counted AFTER INSERT ON group_object BEGIN
    INSERT INTO object_count (gateway_group_id, noun, total) VALUES (NEW.gateway_group_id, NEW.kind, 1)
    ON CONFLICT (gateway_group_id, noun) DO UPDATE SET total = total + 1;
END;
CREATE TRIGGER group_object_uncounted AFTER DELETE ON group_object BEGIN
    UPDATE object_count SET total = total - 1 WHERE gateway_group_id = OLD.gateway_group_id AND noun = OLD.kind;
    DELETE FROM object_count WHERE gateway_group_id = OLD.gateway_group_id AND noun = OLD.kind AND total = 0;
END;

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
CREATE INDEX service_template_by_publish ON service_template (last_published, change_number, id);
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
