//! Actions on one delivery. Operators assign, set the status, retry and cancel; a shop cancels its own deliveries.

use crate::effects::UseCases;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use serde_json::{Map, Value};

use crate::dispatch::lifecycle::{self, AssignmentReason, Reason};
use crate::dispatch::progress::{self, DriverUpdate, UpdateDetails};
use crate::dispatch::{DispatchError, Unit};
use crate::domain::delivery::FailureCode;
use crate::domain::event::Actor;
use crate::domain::fields::FieldError;
use crate::domain::ids::{DeliveryId, DriverId};
use crate::http::body::JsonBody;
use crate::http::fields::Fields;
use crate::http::idempotency::{self, Answer, Keyed};
use crate::http::middleware::auth::{Caller, Staff};
use crate::http::operators::deliveries::visible;
use crate::http::operators::views;
use crate::http::problem::Problem;
use crate::http::routes::{post, resource};
use crate::store::deliveries::{self, Delivery};
use crate::store::drivers;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/deliveries/{id}/assign", "POST").route(post().to(assign)))
        .service(resource("/deliveries/{id}/cancel", "POST").route(post().to(cancel)))
        .service(resource("/deliveries/{id}/status", "POST").route(post().to(set_status)))
        .service(resource("/deliveries/{id}/retry", "POST").route(post().to(retry)));
}

/// An action on one delivery.
enum Action {
    Assign(DriverId, Reason),
    Cancel(Reason),
    Update(DriverUpdate, UpdateDetails),
    Retry(Reason),
}

/// A request to act on one delivery, before its own fields are read.
struct Acting {
    caller: Caller,
    delivery: DeliveryId,
    use_cases: web::Data<UseCases>,
    keyed: Option<Keyed>,
    object: Map<String, Value>,
}

impl FromRequest for Acting {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, body) = (request.clone(), JsonBody::from_request(request, payload));
        Box::pin(async move {
            let caller = Caller::extract(&request).await?;
            let delivery = request.match_info().query("id").parse().map_err(|_| Problem::not_found())?;
            let use_cases = request.app_data::<web::Data<UseCases>>().cloned();
            let use_cases = use_cases.ok_or_else(|| Problem::internal("the application holds no use cases"))?;
            let body = body.await?;
            let keyed = Keyed::of(&request, &caller, &body.raw)?;
            Ok(Self { caller, delivery, use_cases, keyed, object: body.object })
        })
    }
}

impl Acting {
    async fn perform(self, action: Action) -> Result<HttpResponse, Problem> {
        let Self { caller, delivery: id, use_cases, keyed, .. } = self;
        let answer = idempotency::perform(&use_cases, keyed, move |unit| {
            Box::pin(async move {
                let mut delivery = visible(&caller, deliveries::lock(unit.conn, id).await?)?;
                act(unit, &mut delivery, &action, &caller.actor()).await?;
                let after = deliveries::get(unit.conn, id).await?.ok_or(DispatchError::NotFound)?;
                Ok(Answer::ok(views::delivery(&after)))
            })
        });
        Ok(answer.await?.into_response())
    }
}

async fn act(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    action: &Action,
    actor: &Actor,
) -> Result<(), DispatchError> {
    match action {
        Action::Assign(driver, why) => assign_by_operator(unit, delivery, *driver, &why.reason, actor).await,
        Action::Cancel(end_reason) => lifecycle::cancel(unit, delivery, end_reason, actor).await,
        Action::Update(step, details) => progress::update_by_operator(unit, delivery, *step, details, actor).await,
        Action::Retry(end_reason) => lifecycle::retry(unit, delivery, end_reason, actor).await,
    }
}

/// Assigns a waiting delivery to the driver whom an operator chose, online or not.
async fn assign_by_operator(
    unit: &mut Unit<'_>,
    delivery: &mut Delivery,
    driver: DriverId,
    reason: &str,
    actor: &Actor,
) -> Result<(), DispatchError> {
    let unknown = || DispatchError::Fields(vec![FieldError::new("driverId", "unknown", "there is no such driver")]);
    let driver = drivers::lock(unit.conn, driver).await?.ok_or_else(unknown)?;
    lifecycle::assign(unit, delivery, &driver, AssignmentReason::Chosen { reason }, actor).await
}

async fn assign(_operator: Staff, acting: Acting) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of(&acting.object);
    let driver = fields.required("driverId", Fields::id);
    let reason = fields.required("reason", Fields::reason).unwrap_or_default();
    fields.finish()?;
    let driver = driver.ok_or_else(Problem::not_found)?;
    acting.perform(Action::Assign(driver, Reason::of(&reason))).await
}

async fn cancel(acting: Acting) -> Result<HttpResponse, Problem> {
    let end_reason = parse_reason(&acting.object)?;
    acting.perform(Action::Cancel(end_reason)).await
}

async fn retry(_operator: Staff, acting: Acting) -> Result<HttpResponse, Problem> {
    let end_reason = parse_reason(&acting.object)?;
    acting.perform(Action::Retry(end_reason)).await
}

async fn set_status(_operator: Staff, acting: Acting) -> Result<HttpResponse, Problem> {
    let (step, details) = parse_status(&acting.object)?;
    acting.perform(Action::Update(step, details)).await
}

fn parse_reason(object: &Map<String, Value>) -> Result<Reason, Problem> {
    let mut fields = Fields::of(object);
    let reason = fields.required("reason", Fields::reason).unwrap_or_default();
    fields.finish()?;
    Ok(Reason::of(&reason))
}

/// Parses `{status, failure?: {code, reason?}, reason}`. A failure without a code is the operator's: MANUAL_CANCEL.
fn parse_status(object: &Map<String, Value>) -> Result<(DriverUpdate, UpdateDetails), Problem> {
    let mut fields = Fields::of(object);
    let step = fields.required("status", |fields, name| {
        fields.choice(name, "PICKED_UP, IN_TRANSIT, DELIVERED, FAILED", |text| match text {
            "PICKED_UP" => Some(DriverUpdate::PickedUp),
            "IN_TRANSIT" => Some(DriverUpdate::InTransit),
            "DELIVERED" => Some(DriverUpdate::Delivered),
            "FAILED" => Some(DriverUpdate::Failed),
            _ => None,
        })
    });
    let reason = fields.required("reason", Fields::reason);
    let failure = fields.object("failure", |inner| {
        let code = inner.required("code", |inner, name| {
            inner.choice(name, "the failure codes", |text| serde_json::from_value(Value::from(text)).ok())
        });
        let words = inner.reason("reason");
        code.map(|code: FailureCode| (code, words))
    });
    fields.finish()?;
    let step = step.ok_or_else(Problem::not_found)?;
    let failure = (step == DriverUpdate::Failed).then(|| match failure {
        Some((code, words)) => (code, words.or_else(|| reason.clone())),
        None => (FailureCode::ManualCancel, reason.clone()),
    });
    Ok((step, UpdateDetails { failure, reason, ..UpdateDetails::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::Scope;
    use crate::http::auth::tests::caller;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpMessage};
    use serde_json::json;

    fn status(value: Value) -> Result<(DriverUpdate, UpdateDetails), Problem> {
        parse_status(value.as_object().unwrap())
    }

    /// The status of each action for a key of this scope, in an application without use cases: 500 means that the scope
    /// allows the action.
    async fn statuses(scope: Scope) -> Vec<u16> {
        let app = init_service(App::new().configure(configure)).await;
        let mut statuses = Vec::new();
        for action in ["assign", "status", "retry", "cancel"] {
            let request = TestRequest::post().uri(&format!("/deliveries/{}/{action}", DeliveryId::new())).to_request();
            request.extensions_mut().insert(caller(scope.clone(), 7));
            statuses.push(call_service(&app, request).await.status().as_u16());
        }
        statuses
    }

    #[actix_web::test]
    async fn a_shop_cancels_and_leaves_the_rest_to_operators() {
        assert_eq!(statuses(Scope::Admin).await, [500; 4]);
        assert_eq!(statuses(Scope::Shop("a".to_owned())).await, [403, 403, 403, 500]);
        assert_eq!(statuses(Scope::Read).await, [403; 4]);
    }

    #[test]
    fn a_failure_has_a_code_and_words() {
        let (step, with) = status(json!({"status": "FAILED", "reason": "lost"})).unwrap();
        assert_eq!(
            (step, with.failure),
            (DriverUpdate::Failed, Some((FailureCode::ManualCancel, Some("lost".to_owned()))))
        );
        let named = json!({"status": "FAILED", "reason": "x", "failure": {"code": "TIMEOUT", "reason": "too late"}});
        let named = status(named).unwrap().1;
        assert_eq!(named.failure, Some((FailureCode::Timeout, Some("too late".to_owned()))));
        assert_eq!(named.reason.as_deref(), Some("x"), "the operator's own words stand beside those of the failure");
        let none = status(json!({"status": "DELIVERED", "reason": "told by phone"})).unwrap();
        assert_eq!((none.0, none.1.failure), (DriverUpdate::Delivered, None));
        for bad in [
            json!({"status": "ASSIGNED", "reason": "x"}),
            json!({"status": "FAILED"}),
            json!({"status": "FAILED", "reason": "x", "failure": {"code": "RAIN"}}),
        ] {
            assert!(status(bad.clone()).is_err(), "{bad}");
        }
    }
}
