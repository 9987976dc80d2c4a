//! Checks that `docs/configuration.md` and the table of settings describe the same settings.

use std::collections::BTreeMap;

use driver_tracker::config::{CONFIG_FILE_VARIABLE, SETTINGS};

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"));

/// Returns the table rows whose first cell is a name in code: the heading above, the default, the meaning.
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
            assert!(
                rows.insert(name, (heading, default, meaning)).is_none(),
                "{name} has two rows in docs/configuration.md"
            );
        }
    }
    rows
}

#[test]
fn the_page_has_every_setting_under_its_heading_with_its_default() {
    let rows = rows();
    for setting in SETTINGS {
        let Some((heading, default, meaning)) = rows.get(setting.name) else {
            panic!("docs/configuration.md has no row for {setting}")
        };
        let expected = setting.default.map_or(setting.otherwise.to_owned(), |value| format!("`{value}`"));
        assert_eq!(*default, expected, "docs/configuration.md has the default of {setting}");
        assert_eq!(*heading, setting.group.title(), "docs/configuration.md has {setting} under its heading");
        assert!(meaning.len() > 20, "docs/configuration.md explains {setting}");
    }
}

#[test]
fn every_row_of_the_page_is_a_setting() {
    let rows = rows();
    assert!(rows.len() >= SETTINGS.len(), "the rows of the page are found");
    for name in rows.keys() {
        assert!(SETTINGS.iter().any(|setting| setting.name == *name), "the page lists {name}, which is not a setting");
    }
}

#[test]
fn every_setting_that_the_page_mentions_exists() {
    let mentioned = PAGE.split('`').skip(1).step_by(2);
    let in_capitals = |text: &&str| {
        text.contains('_')
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let mentioned: Vec<&str> = mentioned.filter(in_capitals).collect();
    assert!(
        mentioned.contains(&"DATABASE_URL") && mentioned.contains(&CONFIG_FILE_VARIABLE),
        "the names in the page are found"
    );
    for name in mentioned {
        let known = name == CONFIG_FILE_VARIABLE || SETTINGS.iter().any(|setting| setting.name == name);
        assert!(known, "the page mentions {name}, which is not a setting");
    }
}
