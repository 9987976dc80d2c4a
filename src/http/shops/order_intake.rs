//! Accepts an order from a webhook or an operator: commits it, waits briefly for a driver, then returns the status of
//! the delivery.
//!
//! Invariant: a 2xx means that the order is committed in PostgreSQL. After a failure that follows the commit, the
//! answer is a 202 with what is known.

use std::time::Duration;

use actix_web::http::StatusCode;
use serde_json::{Value, json};

use crate::dispatch::intake::{self, Cancelled, Received};
use crate::dispatch::{DispatchError, Effects};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::event::Actor;
use crate::domain::fields::FieldError;
use crate::domain::ids::{DeliveryId, ShopName};
use crate::domain::order::{Cancellation, NewOrder};
use crate::effects::{AssignmentWaiters, UseCases};
use crate::http::idempotency::{Answer, Keyed};
use crate::http::problem::Problem;
use crate::protocol::outbound::put;
use crate::store::deliveries::{self, Delivery};
use crate::store::{StoreError, shops};
use crate::webhooks::order::OrderError;

/// The time limit for reading the delivery again after the wait. After it, the answer is what is already known.
const REREAD_TIMEOUT: Duration = Duration::from_millis(1500);

/// An order that has been parsed.
pub struct Order {
    /// The shop.
    pub shop: ShopName,
    /// The order itself.
    pub order: NewOrder,
    /// SHA-256 of the body as received.
    pub body_hash: [u8; 32],
    /// The sender.
    pub actor: Actor,
}

enum Taken {
    Before(Answer),
    Now(Box<Received>),
}

/// Accepts orders and cancellations, and waits briefly for a driver.
pub struct OrderIntake {
    /// The use cases.
    pub use_cases: UseCases,
    /// Requests that wait for an outcome.
    pub waiters: AssignmentWaiters,
    /// `ASSIGNMENT_WAIT_MS`.
    pub wait: Duration,
}

impl OrderIntake {
    /// Accepts an order and returns the answer of the table in `docs/protocol.md`.
    #[tracing::instrument(level = "trace", skip_all)]
    pub async fn take(&self, order: Order, keyed: Option<Keyed>) -> Result<Answer, Problem> {
        let kept = keyed.clone();
        let (taken, effects) = self
            .use_cases
            .transact(move |unit| {
                Box::pin(async move {
                    if let Some(keyed) = &keyed
                        && let Some(before) = keyed.begin(unit).await?
                    {
                        return Ok(Taken::Before(before));
                    }
                    if !shops::exists(unit.conn, &order.shop).await? {
                        let fault = FieldError::new("shop", "unknown", "there is no such shop");
                        return Err(DispatchError::Fields(vec![fault]));
                    }
                    let received =
                        intake::receive_order(unit, &order.shop, &order.order, &order.body_hash, &order.actor).await?;
                    // The answer is saved before the wait, so that a crash during the wait leaves an answer.
                    if let Some(keyed) = &keyed {
                        keyed.keep(unit, &answer(&received)).await?;
                    }
                    Ok(Taken::Now(Box::new(received)))
                })
            })
            .await?;
        match taken {
            Taken::Before(answer) => Ok(answer),
            Taken::Now(received) => Ok(self.finish(*received, effects, kept).await),
        }
    }

    async fn finish(&self, mut received: Received, effects: Effects, keyed: Option<Keyed>) -> Answer {
        let waits = !received.duplicate && received.delivery.status == DeliveryStatus::Pending;
        if !waits {
            self.use_cases.apply(effects).await;
            return answer(&received);
        }
        let id = received.delivery.id;
        let resolved = self.waiters.register(id);
        self.use_cases.apply(effects).await;
        if tokio::time::timeout(self.wait, resolved).await.is_err() {
            // This request waits no longer: remove its waiter.
            self.waiters.resolve(id);
        }
        if let Some(delivery) = self.read_again(id).await {
            received.delivery = delivery;
        }
        let answer = answer(&received);
        if let Some(keyed) = keyed {
            self.keep_final(keyed, &answer).await;
        }
        answer
    }

    async fn read_again(&self, id: DeliveryId) -> Option<Delivery> {
        let reading =
            self.use_cases.database().transact(move |conn| Box::pin(async move { deliveries::get(conn, id).await }));
        let read: Result<Option<Delivery>, StoreError> = tokio::time::timeout(REREAD_TIMEOUT, reading)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())));
        read.unwrap_or_else(|error| {
            tracing::warn!(delivery.id = %id, error = %error, "an order was taken in and could not be read again");
            None
        })
    }

    async fn keep_final(&self, keyed: Keyed, answer: &Answer) {
        let answer = answer.clone();
        let kept = self
            .use_cases
            .transact_and_apply(move |unit| Box::pin(async move { keyed.keep(unit, &answer).await }))
            .await;
        if let Err(error) = kept {
            tracing::debug!(error = %error, "a repeat will be answered with the order's first state");
        }
    }

    /// Cancels an order, known or unknown.
    pub async fn cancel(&self, shop: ShopName, cancellation: Cancellation) -> Result<Answer, Problem> {
        let actor = Actor::Shop(shop.as_str().to_owned());
        let (name, order_id) = (shop.clone(), cancellation.seller_order_id.clone());
        let (cancelled, effects) = self
            .use_cases
            .transact(move |unit| {
                Box::pin(async move {
                    let Cancellation { seller_order_id, channel_id, reason } = &cancellation;
                    intake::receive_cancellation(unit, &shop, seller_order_id, channel_id, reason.as_deref(), &actor)
                        .await
                })
            })
            .await?;
        let answer = match &cancelled {
            Cancelled::Delivery(delivery) => {
                let repeated = !effects.resolved.contains(&delivery.id);
                Answer::ok(shape(delivery, repeated))
            }
            Cancelled::Remembered => Answer::accepted(json!({
                "shop": name, "sellerOrderId": order_id, "status": DeliveryStatus::Cancelled, "duplicate": false,
            })),
        };
        self.use_cases.apply(effects).await;
        Ok(answer)
    }
}

/// 201 with a driver, 202 while the order waits, 200 for a duplicate or an order that was cancelled before it arrived.
fn answer(received: &Received) -> Answer {
    let delivery = &received.delivery;
    let status = match delivery.status {
        _ if received.duplicate => StatusCode::OK,
        DeliveryStatus::Pending => StatusCode::ACCEPTED,
        DeliveryStatus::Assigned | DeliveryStatus::PickedUp | DeliveryStatus::InTransit | DeliveryStatus::Delivered => {
            StatusCode::CREATED
        }
        DeliveryStatus::Cancelled | DeliveryStatus::Failed => StatusCode::OK,
    };
    let mut body = shape(delivery, received.duplicate);
    if !received.differs.is_empty() {
        body["conflict"] = json!(true);
        body["differs"] = json!(received.differs);
    }
    let location = (status == StatusCode::CREATED).then(|| format!("/api/v1/deliveries/{}", delivery.id));
    Answer { status, location, body }
}

/// The body of every 2xx to a shop.
fn shape(delivery: &Delivery, duplicate: bool) -> Value {
    let mut value = json!({
        "deliveryId": delivery.id, "shop": delivery.shop, "sellerOrderId": delivery.seller_order_id,
        "status": delivery.status, "duplicate": duplicate,
    });
    put(&mut value, "driverId", delivery.driver_id.map(|id| id.to_string()));
    put(&mut value, "assignmentId", delivery.assignment_id.map(|id| id.to_string()));
    value
}

/// The problem of an invalid body.
pub fn refusal(error: OrderError) -> Problem {
    match error {
        OrderError::NotJson(detail) => Problem::bad_request("invalid_json", format!("the body is not JSON: {detail}")),
        OrderError::Invalid(errors) => Problem::fields(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::DriverId;
    use crate::domain::order::{Stop, StopDetails};
    use crate::domain::position::Position;
    use crate::domain::region::Region;
    use chrono::Utc;

    fn received(status: DeliveryStatus, duplicate: bool, differs: &[&str]) -> Received {
        let position = Position::new(12.9, 77.6).unwrap();
        let stop = Stop { position, details: StopDetails::default() };
        let delivery = Delivery {
            id: DeliveryId::new(),
            shop: "vendure".to_owned(),
            seller_order_id: "4711".to_owned(),
            channel_id: "2".to_owned(),
            order_code: None,
            external_id: None,
            metadata: None,
            items: None,
            ready_at: None,
            pickup: stop.clone(),
            drop: stop,
            status,
            attempt: 1,
            region: Region::of(&position, h3o::Resolution::Five),
            search_rounds: 0,
            driver_id: status.holds_driver().then(DriverId::new),
            assignment_id: None,
            assigned_at: None,
            picked_up_at: None,
            delivered_at: None,
            cancelled_at: None,
            failure: None,
            created_at: Utc::now(),
            updated_at: Utc::now(),
        };
        Received { delivery, duplicate, differs: differs.iter().map(|field| (*field).to_owned()).collect() }
    }

    #[test]
    fn the_status_is_the_tables() {
        use DeliveryStatus as S;
        for (status, code) in [(S::Assigned, 201), (S::InTransit, 201), (S::Pending, 202), (S::Cancelled, 200)] {
            assert_eq!(answer(&received(status, false, &[])).status.as_u16(), code, "{status}");
            assert_eq!(answer(&received(status, true, &[])).status.as_u16(), 200, "{status}");
        }
    }

    #[test]
    fn the_shape_leaves_out_what_is_not_known() {
        let pending = answer(&received(DeliveryStatus::Pending, false, &[]));
        let names: Vec<&String> = pending.body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["deliveryId", "duplicate", "sellerOrderId", "shop", "status"]);
        let conflicting = answer(&received(DeliveryStatus::Assigned, true, &["drop.phone"]));
        assert_eq!((&conflicting.body["duplicate"], &conflicting.body["conflict"]), (&json!(true), &json!(true)));
        assert_eq!(conflicting.body["differs"], json!(["drop.phone"]));
        assert!(conflicting.body.get("driverId").is_some());
    }
}
