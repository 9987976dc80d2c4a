//! Driver tokens for operators: create (shown once), list (never shown), revoke.
//!
//! An answer saved for an `Idempotency-Key` must not hold a token that is otherwise stored only as a hash. The saved
//! token is masked, and only the API key that requested it can remove the mask.

use crate::effects::UseCases;
use crate::store::Database;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dispatch::{DispatchError, roster};
use crate::domain::ids::{DriverId, TokenId};
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::http::body::{JsonBody, path_id};
use crate::http::idempotency::{self, Answer, Keyed};
use crate::http::middleware::auth::{Caller, Staff};
use crate::http::operators::views;
use crate::http::pagination::{Page, list as page_of};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::routes::{get, post, resource};
use crate::store::{credentials, drivers};

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/drivers/{id}/tokens", "GET, POST").route(get().to(list)).route(post().to(create)))
        .service(resource("/drivers/{id}/tokens/{token_id}", "DELETE").route(web::delete().to(revoke)));
}

async fn create(
    staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    use_cases: web::Data<UseCases>,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let driver: DriverId = path_id(&path)?;
    let keyed = Keyed::of(&request, &staff.0, &body.raw)?;
    let caller = staff.0.clone();
    let answer = idempotency::perform(&use_cases, keyed, move |unit| {
        Box::pin(async move {
            drivers::get(unit.conn, driver).await?.ok_or(DispatchError::NotFound)?;
            let new = SecretToken::random(TokenKind::Driver);
            let id = credentials::insert_token(unit.conn, driver, &new.hash()).await?;
            let masked = URL_SAFE_NO_PAD.encode(mask(&caller, id.0, new.expose().as_bytes()));
            let location = format!("/api/v1/drivers/{driver}/tokens/{id}");
            Ok(Answer::created(location, json!({"tokenId": id, "masked": masked})))
        })
    });
    let mut answer = answer.await?;
    answer.body = unmask(&staff.0, &answer.body)?;
    Ok(answer.into_response())
}

/// Adds or removes the mask. The mask is as long as the text and consists of different blocks.
fn mask(caller: &Caller, id: Uuid, text: &[u8]) -> Vec<u8> {
    let blocks = text.chunks(32).enumerate().flat_map(|(index, chunk)| {
        let mask = caller.mask(Uuid::from_u128(id.as_u128() ^ index as u128));
        chunk.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<u8>>()
    });
    blocks.collect()
}

fn unmask(caller: &Caller, kept: &Value) -> Result<Value, Problem> {
    let unreadable = || Problem::internal("a kept token cannot be read");
    let id: TokenId = kept["tokenId"].as_str().and_then(|id| id.parse().ok()).ok_or_else(unreadable)?;
    let masked = kept["masked"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(unreadable)?;
    let token = String::from_utf8(mask(caller, id.0, &masked)).map_err(|_| unreadable())?;
    Ok(json!({"tokenId": id, "token": token}))
}

async fn list(
    _staff: Staff,
    path: web::Path<String>,
    request: HttpRequest,
    database: web::Data<Database>,
) -> Result<HttpResponse, Problem> {
    let driver: DriverId = path_id(&path)?;
    let mut query = Query::of(&request);
    let page = Page::<TokenId>::read(&mut query);
    query.finish()?;
    let (after, fetch) = (page.after, page.fetch());
    let mut rows = database
        .transact(move |conn| {
            Box::pin(async move {
                drivers::get(&mut *conn, driver).await?.ok_or(DispatchError::NotFound)?;
                Ok::<_, DispatchError>(credentials::list_tokens(conn, driver, after, fetch).await?)
            })
        })
        .await?;
    let next = page.cut(&mut rows, |row| TokenId(row.id));
    Ok(Answer::ok(page_of(rows.iter().map(views::token).collect(), next)).into_response())
}

async fn revoke(
    _staff: Staff,
    path: web::Path<(String, String)>,
    use_cases: web::Data<UseCases>,
) -> Result<HttpResponse, Problem> {
    let (driver, token) = path.into_inner();
    let driver: DriverId = driver.parse().map_err(|_| Problem::not_found())?;
    let token: TokenId = token.parse().map_err(|_| Problem::not_found())?;
    use_cases
        .transact_and_apply(move |unit| Box::pin(async move { roster::revoke_token(unit, driver, token).await }))
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::Scope;
    use crate::http::auth::tests::caller;

    #[test]
    fn a_kept_token_is_read_by_its_own_key_alone() {
        let (own, other) = (caller(Scope::Admin, 1), caller(Scope::Admin, 2));
        let token = SecretToken::random(TokenKind::Driver);
        let token = token.expose();
        let id = TokenId::new();
        let masked = mask(&own, id.0, token.as_bytes());
        let kept = json!({"tokenId": id, "masked": URL_SAFE_NO_PAD.encode(&masked)});
        assert!(!kept.to_string().contains(token));
        assert_eq!(unmask(&own, &kept).unwrap()["token"], token);
        assert_ne!(unmask(&other, &kept).ok().map(|value| value["token"].clone()), Some(token.into()));
    }
}
