//! Cancels orders that an earlier simulation left open, so that they do not occupy the drivers of the next run.
//!
//! Invariant: orders of other senders are never cancelled.

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::api::{Api, ApiError, ListedDelivery};
use super::orders::{ORDER_ID_PREFIX, ORDER_MARK};
use super::{REST_AT_ONCE, SimulateError, WebhookAuth};

/// The statuses of an order that has not ended.
const OPEN: [&str; 4] = ["PENDING", "ASSIGNED", "PICKED_UP", "IN_TRANSIT"];
/// The reason that the audit trail and the shop receive.
const REASON: &str = "left open by an earlier simulation";

/// Returns whether a simulation posted the order of this delivery.
fn is_simulated(delivery: &ListedDelivery) -> bool {
    delivery.seller_order_id.starts_with(ORDER_ID_PREFIX) && delivery.metadata[ORDER_MARK] == Value::Bool(true)
}

/// Cancels every simulated order of the service at `http_url` that has not ended, whichever run posted it. Returns the
/// number of cancelled orders. `admin_key` must have the scope `admin`.
pub async fn cancel_leftovers(http_url: &str, admin_key: &str) -> Result<usize, SimulateError> {
    // The client needs some webhook credential, but no order is posted here.
    let api = Api::new(http_url, Some(admin_key), &WebhookAuth::Shared("unused".to_owned()))?;
    let mut left = Vec::new();
    for status in OPEN {
        left.extend(api.deliveries(status).await?.into_iter().filter(is_simulated));
    }
    let cancelled = stream::iter(&left).map(|one| api.cancel(&one.id, REASON)).buffer_unordered(REST_AT_ONCE);
    let outcomes: Vec<Result<(), SimulateError>> = cancelled.collect().await;
    let mut count = 0;
    for outcome in outcomes {
        match outcome {
            Ok(()) => count += 1,
            // The order ended in the meantime.
            Err(SimulateError::Rest(ApiError::Status { status: 409, .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_order_is_simulated_only_with_both_the_id_prefix_and_the_mark() {
        let listed = |order: Value| is_simulated(&serde_json::from_value::<ListedDelivery>(order).unwrap());
        let order = |id: &str, metadata: Value| json!({"id": "x", "sellerOrderId": id, "metadata": metadata});
        assert!(listed(order("sim-1-1", json!({"simulated": true}))));
        assert!(!listed(order("sim-1-1", json!({"simulated": "true"}))));
        assert!(!listed(order("sim-1-1", json!({}))));
        assert!(!listed(order("first-1", json!({"simulated": true}))));
        assert!(!listed(json!({"id": "x", "sellerOrderId": "sim-1"})), "an order without metadata is not simulated");
    }
}
