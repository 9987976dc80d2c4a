//! Parses the address of PostgreSQL: one URL that may name several servers. One server at a time takes writes.
//!
//! - The form is that of libpq: `postgres://user:password@h1:5432,h2:5433/name?target_session_attrs=read-write`.
//! - An error is the rest of a sentence that begins with the setting's name.
//! - An error must not repeat the value, because the value contains a password.

use url::Url;

/// The largest number of servers in one URL.
const MAX_SERVERS: usize = 16;

const FORM: &str = "must be a URL such as postgres://user:password@host:5432/name, or …@host1:5432,host2:5432/name";

/// How the connection is encrypted, as libpq names it.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The parameter by which libpq is asked for a server that takes writes.
const TARGET: &str = "target_session_attrs";

/// Returns the URL of each server that `text` names, in the same order, without `target_session_attrs`.
pub fn servers(text: &str) -> Result<Vec<Url>, String> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| FORM.to_owned())?;
    if !matches!(scheme.to_ascii_lowercase().as_str(), "postgres" | "postgresql") {
        return Err(format!("{FORM}: its scheme is not postgres or postgresql"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if authority.contains('@') { "@" } else { "" };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > MAX_SERVERS {
        return Err(format!("must name at most {MAX_SERVERS} servers"));
    }
    if hosts.len() > 1 && hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return Err("has an empty entry in its list of servers: each is host or host:port, between commas".to_owned());
    }
    hosts.iter().map(|host| server(&format!("{scheme}://{user}{at}{host}{path}"))).collect()
}

/// Checks the URL of one server and removes `target_session_attrs`.
fn server(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text)
        .map_err(|_| format!("{FORM}; special characters in the user and the password are written as %XX"))?;
    let mut kept = Vec::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            // The service needs a server that takes writes, so every other value is an error of the operator.
            TARGET if matches!(&*value, "read-write" | "primary") => {}
            TARGET => {
                return Err(format!(
                    "must have {TARGET}=read-write, or none: the service needs a server that takes writes"
                ));
            }
            "host" | "hostaddr" | "port" if value.contains(',') => {
                return Err("names several servers by a parameter: name them before the path, as in \
                            postgres://user:password@host1:5432,host2:5432/name"
                    .to_owned());
            }
            "sslmode" | "ssl-mode" if !SSL_MODES.contains(&&*value) => {
                return Err(format!("must have sslmode={}", SSL_MODES.join(", ")));
            }
            _ => kept.push((name.into_owned(), value.into_owned())),
        }
    }
    // The query is written again only if a parameter was removed. Otherwise it keeps its spelling.
    if kept.len() < url.query_pairs().count() {
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        servers(text).expect(text).iter().map(Url::to_string).collect()
    }

    #[test]
    fn one_server_is_read_as_it_stands() {
        for text in [
            "postgres://app:hunter2@db/tracker",
            "postgresql:///x?host=/run/postgresql",
            "postgres://app:p%40ss%2C@[::1]:5432/tracker?sslmode=verify-full&sslrootcert=/etc/ca%20x.pem",
        ] {
            assert_eq!(read(text), [text]);
        }
    }

    #[test]
    fn several_servers_share_user_name_and_parameters() {
        let text = "postgres://app:x@h1:5432,[::1]:5433,h3/tracker?sslmode=require&target_session_attrs=read-write";
        assert_eq!(
            read(text),
            [
                "postgres://app:x@h1:5432/tracker?sslmode=require",
                "postgres://app:x@[::1]:5433/tracker?sslmode=require",
                "postgres://app:x@h3/tracker?sslmode=require",
            ]
        );
        assert_eq!(read("postgres://h1,h2/x?target_session_attrs=primary"), ["postgres://h1/x", "postgres://h2/x"]);
        assert_eq!(read("postgres://a,b@h1,h2/x").len(), 2, "a comma in the user is no list");
    }

    #[test]
    fn nonsense_is_refused_without_repeating_it() {
        for (text, named) in [
            ("h1,h2/x", "must be a URL"),
            ("mysql://u:sesame@h/x", "scheme"),
            ("postgres://u:sesame@h1,,h2/x", "empty entry"),
            ("postgres://u:sesame@h1,/x", "empty entry"),
            ("postgres://u:sesame@h1,:5432/x", "empty entry"),
            ("postgres://u:sesame@h1:5432,h2:many/x", "must be a URL"),
            ("postgres://u:sesame@h1,h2/x?target_session_attrs=standby", "read-write"),
            ("postgres://u:sesame@h1/x?target_session_attrs=any", "read-write"),
            ("postgres:///x?user=u&password=sesame&host=h1,h2", "before the path"),
            ("postgres://u:sesame@h/x?port=1,2", "before the path"),
            ("postgres://u:sesame@h/x?sslmode=bogus", "sslmode=disable"),
        ] {
            let must = servers(text).expect_err(text);
            assert!(must.contains(named) && !must.contains("sesame"), "{text}: {must}");
        }
        let many = format!("postgres://{}/x", vec!["h"; MAX_SERVERS + 1].join(","));
        assert!(servers(&many).expect_err("too many").contains("at most"));
    }
}
