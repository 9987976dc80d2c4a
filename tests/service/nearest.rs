//! Tests that an order goes to the nearest candidate, by Redis and by PostgreSQL alone, against a brute-force search.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::support::*;

const SEARCH_MAX_RADIUS_M: f64 = 10_000.0;

/// Two distances that differ by less are equal: Redis stores a place with an error of up to 0.6 m.
const TOLERANCE_M: f64 = 2.0;

fn random_place(random: &mut StdRng, centre: Place, spread_m: f64) -> Place {
    centre.offset(random.random_range(-spread_m..spread_m), random.random_range(-spread_m..spread_m))
}

/// Posts orders until no candidate is left. Asserts that each goes to the nearest remaining candidate.
async fn assert_nearest_is_chosen(world: &World, centre: Place, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    // Many drivers near the centre and a few far away, so that small and large search rings are used.
    let mut places: Vec<Place> = (0..18).map(|_| random_place(&mut random, centre, 900.0)).collect();
    places.extend((0..18).map(|_| random_place(&mut random, centre, 8_000.0)));
    let mut free = world.fleet(&places).await;
    let mut busy = Vec::new();
    for n in 0..30 {
        let pickup = random_place(&mut random, centre, 5_000.0);
        let best = free.iter().map(|d| d.place().distance_m(pickup)).fold(f64::INFINITY, f64::min);
        let response = world.post_order(&Order::at(&format!("oracle-{n}"), pickup)).await;
        if best > SEARCH_MAX_RADIUS_M {
            assert_eq!(response.status, 202, "{}", response.text);
            continue;
        }
        let response = response.expect(201);
        let at = free.iter().position(|d| response["driverId"] == d.id.as_str()).expect("the driver had a free slot");
        let chosen_m = free[at].place().distance_m(pickup);
        assert!(
            chosen_m <= best + TOLERANCE_M,
            "order {n} goes to the nearest driver: chosen {chosen_m:.1} m, nearest {best:.1} m"
        );
        busy.push(free.remove(at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_redis_every_order_goes_to_the_nearest_driver() {
    let world = World::with().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    assert_nearest_is_chosen(&world, RESTAURANT, 1).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_postgresql_alone_every_order_goes_to_the_nearest_driver() {
    let world = World::with().without_redis().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    assert_eq!(world.node().health().await.unwrap()["status"], "degraded");
    assert_nearest_is_chosen(&world, RESTAURANT, 2).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_redis_the_nearest_driver_is_chosen_far_north_and_across_the_antimeridian() {
    let world = World::with().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    across_the_antimeridian(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_postgresql_alone_the_nearest_driver_is_chosen_far_north_and_across_the_antimeridian() {
    let world = World::with().without_redis().set("HEARTBEAT_TTL_MS", 20_000).start().await;
    across_the_antimeridian(&world).await;
    world.finish().await;
}

/// Posts an order in Fiji, where the nearest driver is beyond 180°, and one in Svalbard, where a degree of longitude
/// is short.
async fn across_the_antimeridian(world: &World) {
    let taveuni = Place { lat: -16.85, lon: 179.999 };
    let fleet = world.fleet(&[taveuni.offset(0.0, 600.0), taveuni.offset(0.0, -900.0)]).await;
    assert!(fleet[0].place().lon < -179.0 && fleet[1].place().lon > 179.0);
    let response = world.post_order(&Order::at("fiji", taveuni)).await.expect(201);
    assert_eq!(response["driverId"], fleet[0].id.as_str());

    let longyearbyen = Place { lat: 78.22, lon: 15.65 };
    let north = world.fleet(&[longyearbyen.offset(700.0, 0.0), longyearbyen.offset(0.0, 600.0)]).await;
    let response = world.post_order(&Order::at("svalbard", longyearbyen)).await.expect(201);
    assert_eq!(response["driverId"], north[1].id.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nearby_lists_exactly_the_candidates_of_an_order_nearest_first() {
    let world = World::start().await;
    let fleet = world.fleet(&[200.0, 450.0, 900.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    let idle = world.connected_at(world.node(), RESTAURANT.offset(10.0, 0.0)).await;
    idle.heartbeat().await;
    world.post_order(&Order::at("takes-the-second", RESTAURANT.offset(460.0, 0.0))).await.expect(201);

    let path = format!("/api/v1/drivers/nearby?lat={}&lon={}&radiusKm=5&limit=10", RESTAURANT.lat, RESTAURANT.lon);
    let found = eventually("nearby shows the two candidates", SOON, || async {
        let found = world.admin().get(&path).await.expect(200);
        (found["items"].as_array()?.len() == 2).then_some(found)
    })
    .await;
    let ids: Vec<_> = found["items"].as_array().unwrap().iter().map(|d| d["driverId"].clone()).collect();
    assert_eq!(ids, [json!(fleet[0].id), json!(fleet[2].id)]);
    let metres = found["items"][0]["distanceM"].as_f64().unwrap();
    assert!((metres - 200.0).abs() < 3.0, "{metres}");
    assert!(found["items"][0]["position"]["lat"].is_number());

    let close = path.replace("radiusKm=5", "radiusKm=0.3");
    assert_eq!(world.admin().get(&close).await.expect(200)["items"].as_array().unwrap().len(), 1);
    let one = path.replace("limit=10", "limit=1");
    assert_eq!(world.admin().get(&one).await.expect(200)["items"].as_array().unwrap().len(), 1);
    world.admin().get("/api/v1/drivers/nearby?lat=91&lon=x").await.problem(422);
    world.finish().await;
}
