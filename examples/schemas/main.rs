//! Generates `docs/schemas/*.json` from the types in `wire/`, and examples of events from the encoder of the service. Run it by
//! `cargo run --example schemas`.

mod events;
mod wire;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas");
    for (name, schema) in wire::all() {
        std::fs::write(folder.join(name), wire::text_of(&schema))?;
        println!("docs/schemas/{name}");
    }
    for (name, text) in events::all() {
        std::fs::write(folder.join("examples").join(&name), text)?;
        println!("docs/schemas/examples/{name}");
    }
    Ok(())
}
