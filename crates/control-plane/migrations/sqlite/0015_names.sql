-- Searching in a hundred thousand names, and knowing which labels there are, without reading everything that has one.

-- What lists look objects up by, one row for every object that is listed: kept by triggers, so that no writing and no
-- cascade can forget it. Names are in lower case. Nouns are those of object_count.
CREATE TABLE named (
    id               INTEGER NOT NULL PRIMARY KEY,
    noun             TEXT    NOT NULL,
    gateway_group_id TEXT    NOT NULL,
    owner            TEXT    NOT NULL,
    object_id        TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    labels           TEXT    NOT NULL,
    UNIQUE (noun, gateway_group_id, owner, object_id)
);

-- Every part of three characters and more of every name.
CREATE VIRTUAL TABLE name_search USING fts5 (
    name, content = 'named', content_rowid = 'id', tokenize = 'trigram case_sensitive 1'
);

-- Every label that something has, once. A digest, because PostgreSQL cannot index values of any length.
CREATE TABLE label (
    id               INTEGER NOT NULL PRIMARY KEY,
    noun             TEXT    NOT NULL,
    gateway_group_id TEXT    NOT NULL,
    digest           TEXT    NOT NULL,
    "key"            TEXT    NOT NULL,
    value            TEXT    NOT NULL,
    UNIQUE (noun, gateway_group_id, digest)
);
CREATE TABLE labelled (
    label_id BIGINT NOT NULL,
    named_id BIGINT NOT NULL,
    PRIMARY KEY (label_id, named_id)
);
CREATE INDEX labelled_by_object ON labelled (named_id);

CREATE TRIGGER labelled_gone AFTER DELETE ON labelled BEGIN
    DELETE FROM label
    WHERE id = OLD.label_id AND NOT EXISTS (SELECT 1 FROM labelled WHERE label_id = OLD.label_id);
END;

CREATE TRIGGER named_new AFTER INSERT ON named BEGIN
    INSERT INTO name_search (rowid, name) VALUES (NEW.id, NEW.name);
    INSERT INTO label (noun, gateway_group_id, digest, "key", value)
    SELECT NEW.noun, NEW.gateway_group_id, json_array(l.key, l.value), l.key, l.value FROM json_each(NEW.labels) l
    WHERE true ON CONFLICT (noun, gateway_group_id, digest) DO NOTHING;
    INSERT INTO labelled (label_id, named_id)
    SELECT label.id, NEW.id FROM json_each(NEW.labels) l JOIN label ON label.noun = NEW.noun
    AND label.gateway_group_id = NEW.gateway_group_id AND label.digest = json_array(l.key, l.value);
END;
CREATE TRIGGER named_renamed AFTER UPDATE OF name ON named WHEN OLD.name <> NEW.name BEGIN
    INSERT INTO name_search (name_search, rowid, name) VALUES ('delete', OLD.id, OLD.name);
    INSERT INTO name_search (rowid, name) VALUES (NEW.id, NEW.name);
END;
CREATE TRIGGER named_labelled AFTER UPDATE OF labels ON named WHEN OLD.labels <> NEW.labels BEGIN
    DELETE FROM labelled WHERE named_id = OLD.id;
    INSERT INTO label (noun, gateway_group_id, digest, "key", value)
    SELECT NEW.noun, NEW.gateway_group_id, json_array(l.key, l.value), l.key, l.value FROM json_each(NEW.labels) l
    WHERE true ON CONFLICT (noun, gateway_group_id, digest) DO NOTHING;
    INSERT INTO labelled (label_id, named_id)
    SELECT label.id, NEW.id FROM json_each(NEW.labels) l JOIN label ON label.noun = NEW.noun
    AND label.gateway_group_id = NEW.gateway_group_id AND label.digest = json_array(l.key, l.value);
END;
CREATE TRIGGER named_gone AFTER DELETE ON named BEGIN
    INSERT INTO name_search (name_search, rowid, name) VALUES ('delete', OLD.id, OLD.name);
    DELETE FROM labelled WHERE named_id = OLD.id;
END;

-- What there is already.
INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
SELECT 'service_template', '', '', id, lower(name), labels FROM service_template
UNION ALL SELECT kind || '_route', '', '', id, lower(name), labels FROM route_template
UNION ALL SELECT 'service', gateway_group_id, '', service_id, lower(name), labels FROM published_service
UNION ALL SELECT kind || '_route', gateway_group_id, '', id, lower(name), labels FROM group_route
UNION ALL SELECT kind, gateway_group_id, owner, id, lower(name), labels FROM group_object;

CREATE TRIGGER service_template_named AFTER INSERT ON service_template BEGIN
    INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
    VALUES ('service_template', '', '', NEW.id, lower(NEW.name), NEW.labels);
END;
CREATE TRIGGER service_template_renamed AFTER UPDATE OF name, labels ON service_template
WHEN OLD.name <> NEW.name OR OLD.labels <> NEW.labels BEGIN
    UPDATE named SET name = lower(NEW.name), labels = NEW.labels
    WHERE noun = 'service_template' AND gateway_group_id = '' AND owner = '' AND object_id = NEW.id;
END;
CREATE TRIGGER service_template_unnamed AFTER DELETE ON service_template BEGIN
    DELETE FROM named
    WHERE noun = 'service_template' AND gateway_group_id = '' AND owner = '' AND object_id = OLD.id;
END;

CREATE TRIGGER route_template_named AFTER INSERT ON route_template BEGIN
    INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
    VALUES (NEW.kind || '_route', '', '', NEW.id, lower(NEW.name), NEW.labels);
END;
CREATE TRIGGER route_template_renamed AFTER UPDATE OF name, labels ON route_template
WHEN OLD.name <> NEW.name OR OLD.labels <> NEW.labels BEGIN
    UPDATE named SET name = lower(NEW.name), labels = NEW.labels
    WHERE noun = NEW.kind || '_route' AND gateway_group_id = '' AND owner = '' AND object_id = NEW.id;
END;
CREATE TRIGGER route_template_unnamed AFTER DELETE ON route_template BEGIN
    DELETE FROM named
    WHERE noun = OLD.kind || '_route' AND gateway_group_id = '' AND owner = '' AND object_id = OLD.id;
END;

CREATE TRIGGER published_service_named AFTER INSERT ON published_service BEGIN
    INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
    VALUES ('service', NEW.gateway_group_id, '', NEW.service_id, lower(NEW.name), NEW.labels);
END;
CREATE TRIGGER published_service_renamed AFTER UPDATE OF name, labels ON published_service
WHEN OLD.name <> NEW.name OR OLD.labels <> NEW.labels BEGIN
    UPDATE named SET name = lower(NEW.name), labels = NEW.labels
    WHERE noun = 'service' AND gateway_group_id = NEW.gateway_group_id AND owner = '' AND object_id = NEW.service_id;
END;
CREATE TRIGGER published_service_unnamed AFTER DELETE ON published_service BEGIN
    DELETE FROM named
    WHERE noun = 'service' AND gateway_group_id = OLD.gateway_group_id AND owner = '' AND object_id = OLD.service_id;
END;

CREATE TRIGGER group_route_named AFTER INSERT ON group_route BEGIN
    INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
    VALUES (NEW.kind || '_route', NEW.gateway_group_id, '', NEW.id, lower(NEW.name), NEW.labels);
END;
CREATE TRIGGER group_route_renamed AFTER UPDATE OF name, labels ON group_route
WHEN OLD.name <> NEW.name OR OLD.labels <> NEW.labels BEGIN
    UPDATE named SET name = lower(NEW.name), labels = NEW.labels
    WHERE noun = NEW.kind || '_route' AND gateway_group_id = NEW.gateway_group_id AND owner = ''
    AND object_id = NEW.id;
END;
CREATE TRIGGER group_route_unnamed AFTER DELETE ON group_route BEGIN
    DELETE FROM named
    WHERE noun = OLD.kind || '_route' AND gateway_group_id = OLD.gateway_group_id AND owner = ''
    AND object_id = OLD.id;
END;

CREATE TRIGGER group_object_named AFTER INSERT ON group_object BEGIN
    INSERT INTO named (noun, gateway_group_id, owner, object_id, name, labels)
    VALUES (NEW.kind, NEW.gateway_group_id, NEW.owner, NEW.id, lower(NEW.name), NEW.labels);
END;
CREATE TRIGGER group_object_renamed AFTER UPDATE OF name, labels ON group_object
WHEN OLD.name <> NEW.name OR OLD.labels <> NEW.labels BEGIN
    UPDATE named SET name = lower(NEW.name), labels = NEW.labels
    WHERE noun = NEW.kind AND gateway_group_id = NEW.gateway_group_id AND owner = NEW.owner AND object_id = NEW.id;
END;
CREATE TRIGGER group_object_unnamed AFTER DELETE ON group_object BEGIN
    DELETE FROM named
    WHERE noun = OLD.kind AND gateway_group_id = OLD.gateway_group_id AND owner = OLD.owner AND object_id = OLD.id;
END;
