//! The paths of operators and back offices, authenticated by API key.

pub mod deliveries;
pub mod delivery_actions;
pub mod driver_tokens;
pub mod fleet;
pub mod last_known_location;
pub mod outbound_events;
pub mod shop_settings;
pub mod track;
pub mod views;
