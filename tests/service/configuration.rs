//! Holds `docs/configuration.md` against the table of settings: neither may know what the other does not.

use std::collections::BTreeMap;

use driver_tracker::config::{CONFIG_FILE_VARIABLE, SETTINGS};

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"));

/// The rows of the page's tables whose first cell is a name in code: the heading above, the default's cell, the meaning.
fn rows() -> BTreeMap<&'static str, (&'static str, &'static str, &'static str)> {
    let mut rows = BTreeMap::new();
    let mut heading = "";
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", name, default, meaning, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
        {
            assert!(rows.insert(name, (heading, default, meaning)).is_none(), "{name} stands twice in the page");
        }
    }
    rows
}

#[test]
fn the_page_has_every_setting_under_its_heading_with_its_default() {
    let rows = rows();
    for setting in SETTINGS {
        let Some((heading, default, meaning)) = rows.get(setting.name) else {
            panic!("docs/configuration.md lacks {setting}")
        };
        let expected = setting.default.map_or(setting.otherwise.to_owned(), |value| format!("`{value}`"));
        assert_eq!(*default, expected, "the default of {setting}");
        assert_eq!(*heading, setting.group.title(), "the heading of {setting}");
        assert!(meaning.len() > 20, "{setting} is not explained");
    }
}

#[test]
fn the_page_has_no_row_that_is_no_setting() {
    let rows = rows();
    assert!(rows.len() >= SETTINGS.len(), "the rows are found");
    for name in rows.keys() {
        assert!(SETTINGS.iter().any(|setting| setting.name == *name), "the page lists {name}, which does not exist");
    }
}

#[test]
fn every_name_that_the_page_mentions_exists() {
    let mentioned = PAGE.split('`').skip(1).step_by(2);
    let in_capitals = |text: &&str| {
        text.contains('_')
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let mentioned: Vec<&str> = mentioned.filter(in_capitals).collect();
    assert!(mentioned.contains(&"DATABASE_URL") && mentioned.contains(&CONFIG_FILE_VARIABLE), "the names are found");
    for name in mentioned {
        let known = name == CONFIG_FILE_VARIABLE || SETTINGS.iter().any(|setting| setting.name == name);
        assert!(known, "the page speaks of {name}, which does not exist");
    }
}
