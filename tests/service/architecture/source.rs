//! A parser for the part of Rust's grammar that the architecture tests need: imports and string literals.
//!
//! Invariants:
//! - Comments are dropped.
//! - String literals are kept apart from code.
//! - A path that begins with `crate` or `super` is resolved against its module.

use std::iter::Peekable;
use std::vec::IntoIter;

/// A token of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Mark(char),
    /// `::`
    Path,
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(found) if found == word)
    }
}

/// A token and its module, as a path from the crate's root.
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) module: Vec<String>,
}

/// Returns the module of a file under `src`.
pub(super) fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// Reads the tokens of a file.
pub(super) fn read(file: &str, source: &str) -> Vec<Placed> {
    let tokens = tokens(source);
    let mut module = module_of(file);
    // One entry for every open brace: whether it opens an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut placed: Vec<Placed> = Vec::with_capacity(tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('{') => {
                let inline = at >= 2 && tokens[at - 2].is_word("mod");
                if let (true, Token::Word(name)) = (inline, &tokens[at.saturating_sub(1)]) {
                    module.push(name.clone());
                }
                braces.push(inline);
            }
            Token::Mark('}') if braces.pop() == Some(true) => {
                module.pop();
            }
            _ => {}
        }
        placed.push(Placed { token: token.clone(), module: module.clone() });
    }
    placed
}

/// Returns every path that begins with `crate` or `super`, relative to the crate's root, with the module that names
/// it. `*` stands for the whole crate.
pub(super) fn targets(placed: &[Placed]) -> Vec<(Vec<String>, Vec<String>)> {
    let mut names = Vec::new();
    for (at, one) in placed.iter().enumerate() {
        let begins = at == 0 || placed[at - 1].token != Token::Path;
        let base = match &one.token {
            Token::Word(word) if begins && word == "crate" => Vec::new(),
            Token::Word(word) if begins && word == "super" => one.module[..one.module.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        let rest: Vec<Token> = placed[at + 1..].iter().take(400).map(|placed| placed.token.clone()).collect();
        let mut found = Vec::new();
        follow(&mut rest.into_iter().peekable(), base, &mut found);
        found.dedup();
        names.extend(found.into_iter().map(|path| (path, one.module.clone())));
    }
    names
}

/// Reads a path or a group of paths relative to `base`, and adds each to `found`.
fn follow(tokens: &mut Peekable<IntoIter<Token>>, mut base: Vec<String>, found: &mut Vec<Vec<String>>) {
    while tokens.next_if_eq(&Token::Path).is_some() {
        match tokens.next() {
            Some(Token::Word(word)) if word == "super" => {
                base.pop();
            }
            Some(Token::Word(word)) if word == "self" => {}
            Some(Token::Word(word)) => base.push(word),
            Some(Token::Mark('*')) if base.is_empty() => return found.push(vec!["*".to_owned()]),
            Some(Token::Mark('{')) => return follow_group(tokens, &base, found),
            _ => break,
        }
    }
    if !base.is_empty() {
        found.push(base);
    }
}

fn follow_group(tokens: &mut Peekable<IntoIter<Token>>, base: &[String], found: &mut Vec<Vec<String>>) {
    while let Some(token) = tokens.next() {
        let mut inner = base.to_vec();
        match token {
            Token::Mark('}') => return,
            Token::Word(word) if word == "as" => {
                tokens.next();
                continue;
            }
            Token::Word(word) if word == "super" => {
                inner.pop();
            }
            Token::Word(word) if word == "self" => {}
            Token::Word(word) => inner.push(word),
            Token::Mark('*') if base.is_empty() => {
                found.push(vec!["*".to_owned()]);
                continue;
            }
            _ => continue,
        }
        follow(tokens, inner, found);
    }
}

/// Returns whether a path to the crate `name` begins here: `name::…`, `::name::…`, or `use name`.
pub(super) fn begins_with_crate(placed: &[Placed], at: usize, name: &str) -> bool {
    let token = |at: Option<usize>| at.and_then(|at| placed.get(at)).map(|placed| &placed.token);
    let mut before = at.checked_sub(1);
    if token(before) == Some(&Token::Path) {
        before = at.checked_sub(2);
        // In `a::name`, the name is an item of `a`.
        if matches!(token(before), Some(Token::Word(word)) if word != "use") {
            return false;
        }
    }
    let used = token(before).is_some_and(|token| token.is_word("use"));
    placed[at].token.is_word(name) && (used || token(Some(at + 1)) == Some(&Token::Path))
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (token, next) = token_at(&chars, at);
        tokens.extend(token);
        at = next.max(at + 1);
    }
    tokens
}

/// Returns the token that begins at `at` (`None` for white space and comments) and the position of the next one.
fn token_at(chars: &[char], at: usize) -> (Option<Token>, usize) {
    let peek = |ahead: usize| chars.get(at + ahead).copied().unwrap_or(' ');
    match chars[at] {
        '/' if peek(1) == '/' => (None, find(chars, at, |at| chars[at] == '\n')),
        '/' if peek(1) == '*' => (None, comment_end(chars, at)),
        ':' if peek(1) == ':' => (Some(Token::Path), at + 2),
        '"' => text(chars, at),
        '\'' if peek(1) == '\\' || peek(2) == '\'' => {
            (None, find(chars, at + 2 + usize::from(peek(1) == '\\'), |at| chars[at] == '\'') + 1)
        }
        c if c.is_alphanumeric() || c == '_' => {
            let end = find(chars, at, |at| !(chars[at].is_alphanumeric() || chars[at] == '_'));
            let word: String = chars[at..end].iter().collect();
            let hashes = find(chars, end, |at| chars[at] != '#') - end;
            let raw = matches!(word.as_str(), "r" | "br" | "cr") && chars.get(end + hashes) == Some(&'"');
            if raw { raw_text(chars, end + hashes, hashes) } else { (Some(Token::Word(word)), end) }
        }
        c if c.is_whitespace() => (None, at + 1),
        c => (Some(Token::Mark(c)), at + 1),
    }
}

fn find(chars: &[char], from: usize, is_it: impl Fn(usize) -> bool) -> usize {
    (from.min(chars.len())..chars.len()).find(|at| is_it(*at)).unwrap_or(chars.len())
}

/// Reads a string from its opening quote. Escapes are kept, except for line continuations.
fn text(chars: &[char], quote: usize) -> (Option<Token>, usize) {
    let mut content = String::new();
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        if chars[at] == '\\' {
            at += 1;
        }
        content.extend(chars.get(at));
        at += 1;
    }
    (Some(Token::Text(content)), at + 1)
}

fn raw_text(chars: &[char], quote: usize, hashes: usize) -> (Option<Token>, usize) {
    let closes = |at: usize| chars[at] == '"' && (1..=hashes).all(|ahead| chars.get(at + ahead) == Some(&'#'));
    let end = find(chars, quote + 1, closes);
    (Some(Token::Text(chars[quote + 1..end].iter().collect())), end + 1 + hashes)
}

fn comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < chars.len() {
        let pair = (chars[at], chars.get(at + 1).copied().unwrap_or(' '));
        match pair {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

#[test]
fn comments_are_dropped_and_strings_are_kept_apart() {
    let source = r##"
        // crate::a "b"
        /* crate::c /* nested */ "d" */
        let c = '"'; let e = '\''; fn f<'g>(x: &'g str) {}
        let h = "say \"crate::i\" \
                 on";
        let j = r#"k "l" m"#;
    "##;
    let texts: Vec<Token> = tokens(source).into_iter().filter(|token| matches!(token, Token::Text(_))).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert_eq!(texts[1], Token::Text(r#"k "l" m"#.to_owned()));
    assert!(!tokens(source).iter().any(|token| token.is_word("crate") || token.is_word("nested")));
}

#[test]
fn paths_are_resolved_against_their_module() {
    let names = |file: &str, source: &str| -> Vec<String> {
        let mut names: Vec<String> =
            targets(&read(file, source)).into_iter().filter_map(|(path, _)| path.into_iter().next()).collect();
        names.dedup();
        names
    };
    assert_eq!(names("store/drivers.rs", "use crate::domain::ids; fn f() { crate::http::g() }"), ["domain", "http"]);
    assert_eq!(names("a/b.rs", "use crate::{c::{d, e}, f as g, h::*}; use crate::{self, *};"), ["c", "f", "h", "*"]);
    assert_eq!(
        names("a/b.rs", "use super::c; use super::super::d; use super::super::{e::f, g};"),
        ["a", "d", "e", "g"]
    );
    assert_eq!(names("a/mod.rs", "use super::c; mod d { use super::e; use super::super::f; }"), ["c", "a", "f"]);
    assert_eq!(names("config.rs", "use super::*; pub(crate) fn f(self: &Self) {}"), ["*"]);
}
