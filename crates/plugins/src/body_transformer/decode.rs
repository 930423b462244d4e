//! Bodies as values: JSON, XML, forms, and forms in parts.

use std::rc::Rc;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::value::{Table, Value};

/// Levels that elements of XML may be nested.
const DEPTH_MAX: usize = 128;

/// Elements of one document.
const ELEMENTS_MAX: usize = 100_000;

/// Fields of a form.
const FIELDS_MAX: usize = 1000;

/// JSON as a value.
pub(super) fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map(|json| Value::of_json(&json)).map_err(|error| error.to_string())
}

/// A form, or the query of a request, by name; a name that stands several times has a list.
pub(super) fn form(body: &[u8]) -> Value {
    let mut table = Table::default();
    for (name, value) in form_urlencoded::parse(body).take(FIELDS_MAX) {
        table.add(&name, Value::text(value));
    }
    Value::Table(Rc::new(table))
}

/// A form in parts (RFC 7578), by the names of its parts.
pub(super) fn multipart(body: &[u8], content_type: &str) -> Result<Value, String> {
    let boundary = parameter(content_type, "boundary").ok_or("the content type names no boundary")?;
    let mark = format!("--{boundary}");
    let mut rest =
        find(body, mark.as_bytes()).map(|at| &body[at + mark.len()..]).ok_or("there is no part")?;
    let (mut table, mut parts) = (Table::default(), 0);
    while !rest.starts_with(b"--") {
        let content = rest.strip_prefix(b"\r\n").ok_or("a boundary does not end its line")?;
        let end = find(content, format!("\r\n{mark}").as_bytes()).ok_or("the last part does not end")?;
        let (part, after) = (&content[..end], &content[end + 2 + mark.len()..]);
        let split = find(part, b"\r\n\r\n").ok_or("a part has no head")?;
        let head = String::from_utf8_lossy(&part[..split]);
        let named = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then(|| parameter(value, "name"))?
        });
        parts += 1;
        if parts > FIELDS_MAX {
            return Err(format!("there are more than {FIELDS_MAX} parts"));
        }
        if let Some(name) = named {
            table.add(name, Value::text(String::from_utf8_lossy(&part[split + 4..])));
        }
        rest = after;
    }
    Ok(Value::Table(Rc::new(table)))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// A parameter of a field such as `Content-Type`.
fn parameter<'v>(value: &'v str, name: &str) -> Option<&'v str> {
    value.split(';').skip(1).find_map(|parameter| {
        let (known, value) = parameter.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (known.trim().eq_ignore_ascii_case(name) && !value.is_empty()).then_some(value)
    })
}

/// An element that is being read.
#[derive(Default)]
struct Element {
    name: String,
    table: Table,
    text: String,
}

/// XML as a value: elements by name, without the prefixes of namespaces. One that stands several times is a list, one
/// with text alone is that text, and attributes are in `_attr`.
///
/// Entities beside the five that XML knows are not resolved, and a document type is not read.
pub(super) fn xml(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let mut reader = Reader::from_str(text);
    let (mut open, mut root, mut elements) = (Vec::<Element>::new(), Table::default(), 0_usize);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                elements += 1;
                if open.len() >= DEPTH_MAX || elements > ELEMENTS_MAX {
                    return Err(format!(
                        "there are more than {ELEMENTS_MAX} elements, or more than {DEPTH_MAX} levels of them"
                    ));
                }
                open.push(begun(&start)?);
            }
            Event::Empty(start) => {
                elements += 1;
                let element = begun(&start)?;
                let parent = open.last_mut().map_or(&mut root, |parent| &mut parent.table);
                parent.add(&element.name.clone(), ended(element));
            }
            Event::End(_) => {
                let Some(element) = open.pop() else {
                    return Err("an element ends that did not begin".to_owned());
                };
                let parent = open.last_mut().map_or(&mut root, |parent| &mut parent.table);
                parent.add(&element.name.clone(), ended(element));
            }
            Event::Text(text) => {
                let text: &str = &text;
                match open.last_mut() {
                    Some(element) => element.text.push_str(text),
                    None if text.trim().is_empty() => {}
                    None => return Err("there is text outside of every element".to_owned()),
                }
            }
            Event::GeneralRef(reference) => {
                let name: &str = &reference;
                let part = resolved(name).ok_or_else(|| format!("`&{name};` stands for nothing"))?;
                let element = open.last_mut().ok_or("there is text outside of every element")?;
                element.text.push(part);
            }
            Event::CData(data) => {
                open.last_mut().ok_or("there is text outside of every element")?.text.push_str(&data);
            }
            Event::Eof => break,
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match (open.last(), root.members.is_empty()) {
        (Some(element), _) => Err(format!("element `{}` does not end", element.name)),
        (None, true) => Err("there is no element".to_owned()),
        (None, false) => Ok(Value::Table(Rc::new(root))),
    }
}

/// A name without the prefix of its namespace.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or_default()
}

fn begun(start: &BytesStart<'_>) -> Result<Element, String> {
    let mut attributes = Table::default();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        attributes.add(local(attribute.key.into_inner()), Value::text(unescaped(&attribute.value)?));
    }
    let mut element = Element { name: local(start.name().into_inner()).to_owned(), ..Element::default() };
    if !attributes.members.is_empty() {
        element.table.add("_attr", Value::Table(Rc::new(attributes)));
    }
    Ok(element)
}

/// What an element is once it is over.
fn ended(element: Element) -> Value {
    let Element { mut table, text, .. } = element;
    let text = text.trim();
    if table.members.is_empty() {
        return Value::text(text);
    }
    if !text.is_empty() {
        table.list.push(Value::text(text));
    }
    Value::Table(Rc::new(table))
}

fn unescaped(text: &str) -> Result<String, String> {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';').ok_or("`&` without `;`")?;
        plain.push_str(before);
        plain.push(resolved(name).ok_or_else(|| format!("`&{name};` stands for nothing"))?);
        rest = after;
    }
    plain.push_str(rest);
    Ok(plain)
}

/// What an entity stands for.
fn resolved(name: &str) -> Option<char> {
    let number = name.strip_prefix('#').map(|digits| match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => digits.parse(),
    });
    match (name, number) {
        (_, Some(number)) => char::from_u32(number.ok()?),
        ("amp", _) => Some('&'),
        ("lt", _) => Some('<'),
        ("gt", _) => Some('>'),
        ("quot", _) => Some('"'),
        ("apos", _) => Some('\''),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn xml_is_read_by_names() {
        for (document, expected) in [
            ("<a>1</a>", json!({"a": "1"})),
            ("<?xml version='1.0'?>\n<a><b>x</b><c/></a>", json!({"a": {"b": "x", "c": ""}})),
            ("<s:a xmlns:s='u'><s:b>1</s:b></s:a>", json!({"a": {"_attr": {"s": "u"}, "b": "1"}})),
            ("<a><b>1</b><b>2</b><b>3</b></a>", json!({"a": {"b": ["1", "2", "3"]}})),
            ("<a x='&lt;1'>t</a>", json!({"a": {"1": "t", "_attr": {"x": "<1"}}})),
            ("<a>&lt;&amp;&#65;<![CDATA[<b>]]></a>", json!({"a": "<&A<b>"})),
            ("<!DOCTYPE a [<!ENTITY x 'y'>]><a>1</a>", json!({"a": "1"})),
        ] {
            assert_eq!(xml(document.as_bytes()).map(|value| value.to_json()), Ok(expected), "{document}");
        }
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        for broken in ["", "text", "<a>", "<a></b>", "<a>&x;</a>", "{\"a\": 1}", &deep] {
            assert!(xml(broken.as_bytes()).is_err(), "{broken:.20}");
        }
    }

    #[test]
    fn forms_are_read_by_names() {
        let form = form(b"a=1&b=x+y&a=2&c");
        assert_eq!(form.to_json(), json!({"a": ["1", "2"], "b": "x y", "c": ""}));
        let parts = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX\r\n\
            content-disposition: form-data; name=file; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\nx\r\ny\r\n--XX--\r\n";
        let read = multipart(parts.as_bytes(), "multipart/form-data; boundary=\"XX\"");
        assert_eq!(read.map(|value| value.to_json()), Ok(json!({"a": "1", "file": "x\r\ny"})));
        for (body, content_type) in
            [(parts, "multipart/form-data"), (&parts[..60], "a/b; boundary=XX"), ("", "a/b; boundary=XX")]
        {
            assert!(multipart(body.as_bytes(), content_type).is_err(), "{content_type}");
        }
    }
}
