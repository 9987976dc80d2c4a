#![allow(missing_docs)]
use super::signature::SharedSecret;
use bytes::Bytes; use url::Url; use std::time::Duration;
pub struct EventsClient;
pub struct OutgoingHeaders { pub webhook_id: String, pub timestamp: i64, pub signatures: String, pub shared_secret: Option<SharedSecret> }
pub enum PostOutcome { Delivered{status:u16}, Rejected{status:u16}, Gone, Retry{status:Option<u16>, error:String, retry_after:Option<Duration>} }
impl EventsClient { pub async fn post(&self, _u:&Url, _h:OutgoingHeaders, _b:Bytes)->PostOutcome { PostOutcome::Gone } }
pub struct EventsClientSettings;
impl EventsClientSettings { pub fn new(_n: Vec<ipnet::IpNet>) -> Self { Self } }
impl EventsClient { pub fn new(_s: EventsClientSettings) -> Result<Self, String> { Ok(Self) } }
