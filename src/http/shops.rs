//! Shops, for operators: posting again to one whose endpoint was gone.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::auth::Staff;
use super::body::JsonBody;
use super::idempotency::{self, Answer, Keyed};
use super::problem::Problem;
use super::routes::{post, resource};
use crate::actors::Node;
use crate::dispatch::DispatchError;
use crate::domain::ids::ShopName;
use crate::store::shops;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/shops/{shop}/endpoint/enable", "POST").route(post().to(enable_endpoint)));
}

/// Lets the shop's waiting events go out; a repeat changes nothing.
async fn enable_endpoint(
    staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    node: web::Data<Node>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let shop = ShopName::parse(&path).ok_or_else(Problem::not_found)?;
    let keyed = Keyed::of(&request, &staff.0, body.hash)?;
    let answer = idempotency::perform(&node, keyed, move |unit| {
        Box::pin(async move {
            if !shops::enable_endpoint(unit.conn, &shop).await? {
                return Err(DispatchError::NotFound);
            }
            unit.effects.outbox = true;
            Ok(Answer::ok(json!({"shop": shop, "endpoint": {"enabled": true}})))
        })
    });
    Ok(answer.await?.into_response())
}
