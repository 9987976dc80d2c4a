//! Measures the service's search for the nearest driver among many, by Redis and by PostgreSQL.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::Utc;
use driver_tracker::dispatch::search::{self, Reach};
use driver_tracker::domain::driver::DriverStatus;
use driver_tracker::domain::heartbeat::Heartbeat;
use driver_tracker::domain::ids::DriverId;
use driver_tracker::domain::position::{Fix, Position};
use driver_tracker::presence::{Presence, PresenceSettings, RebuildDriver, StatusChange};
use driver_tracker::store::Database;
use rand::{SeedableRng, rngs::StdRng};
use sqlx::PgConnection;

use crate::table::{Row, Target};
use crate::world::World;
use crate::{background, block_on, city};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// The searches of one figure. As many searches before them warm up.
const SEARCHES: usize = 400;
const WANTED: usize = 1;
const RADIUS_M: f64 = 10_000.0;
/// How long a position counts as fresh. It covers loading and searching a million drivers.
const FRESH: Duration = Duration::from_secs(3600);

fn place(random: &mut StdRng) -> Position {
    let (lat, lon) = city(random);
    Position::new(lat, lon).expect("a place")
}

/// The median search times in microseconds, and the loading time, for one size of fleet.
struct Figures {
    redis: f64,
    postgres: f64,
    loaded: Duration,
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Creates drivers with positions in PostgreSQL and loads them into Redis like a rebuild.
async fn fill(world: &World, conn: &mut PgConnection, presence: &Presence, count: usize) -> Duration {
    world.drivers(count, 1).await;
    let positions = "INSERT INTO driver_positions (driver_id, lat, lon, fix_time, last_seen_at, session_epoch)
        SELECT id, 37.50 + random() * 0.49, -122.60 + random() * 0.58, now(), now(), 1 FROM drivers";
    for statement in [positions, "VACUUM ANALYZE driver_positions", "VACUUM ANALYZE drivers"] {
        sqlx::raw_sql(statement).execute(&mut *conn).await.expect("positions");
    }
    let rows: Vec<(uuid::Uuid, f64, f64)> =
        sqlx::query_as("SELECT driver_id, lat, lon FROM driver_positions").fetch_all(&mut *conn).await.expect("rows");
    let now = Utc::now();
    let drivers: Vec<RebuildDriver> = rows
        .into_iter()
        .map(|(id, lat, lon)| {
            let fix = Fix { position: Position::new(lat, lon).expect("a place"), time: now };
            let driver_id = DriverId(id);
            RebuildDriver {
                change: StatusChange { driver_id, status: DriverStatus::Available, epoch: 1 },
                online: Some(Heartbeat {
                    driver_id,
                    fix: Some(fix),
                    fix_is_newest: true,
                    received_at: now,
                    received: std::time::Instant::now(),
                    session_epoch: 1,
                }),
            }
        })
        .collect();
    world.redis.flush_all().expect("an empty Redis");
    let token = presence.begin_rebuild().await.expect("Redis").expect("the rebuild");
    let began = Instant::now();
    presence.load(&drivers).await.expect("the drivers to be loaded");
    let loaded = began.elapsed();
    assert!(presence.finish_rebuild(token).await.expect("Redis"), "Redis was not warm");
    loaded
}

async fn by_redis(presence: &Presence) -> f64 {
    let mut random = StdRng::seed_from_u64(3);
    let mut times = Vec::new();
    for number in 0..SEARCHES * 2 {
        let pickup = place(&mut random);
        let began = Instant::now();
        let found = presence.nearest(&pickup, WANTED, &HashSet::new(), RADIUS_M).await.expect("Redis");
        assert_eq!(found.len(), WANTED);
        if number >= SEARCHES {
            times.push(began.elapsed());
        }
    }
    median_us(times)
}

async fn by_postgres(database: &Database) -> f64 {
    let mut random = StdRng::seed_from_u64(3);
    let seconds = FRESH.as_secs_f64();
    let mut times = Vec::new();
    for number in 0..SEARCHES * 2 {
        let pickup = place(&mut random);
        let reach = Reach { max_radius_m: RADIUS_M, seen_within_s: seconds, fix_within_s: seconds };
        let began = Instant::now();
        let found = database
            .transact(move |conn| Box::pin(async move { search::nearest(conn, &pickup, &reach, &[], WANTED).await }))
            .await
            .expect("PostgreSQL");
        assert_eq!(found.len(), WANTED);
        if number >= SEARCHES {
            times.push(began.elapsed());
        }
    }
    median_us(times)
}

async fn figures(world: &World, database: &Database, presence: &Presence, count: usize) -> Figures {
    let mut conn = world.connect().await;
    let loaded = fill(world, &mut conn, presence, count).await;
    Figures { redis: by_redis(presence).await, postgres: by_postgres(database).await, loaded }
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    let background = background();
    let settings = PresenceSettings::new(world.redis.url(), background.handle().clone());
    let settings =
        PresenceSettings { ttl: FRESH, position_max_age: FRESH, call_timeout: Duration::from_secs(5), ..settings };
    let presence = Presence::new(settings).expect("the address of Redis");
    presence.set_database_identity("bench".to_owned());
    let database = Database::new(&world.database_url, 4, true, background.handle().clone()).expect("a pool");
    let measured: Vec<Figures> = block_on(async {
        let mut measured = Vec::new();
        for count in SIZES {
            let figures = figures(&world, &database, &presence, count).await;
            eprintln!(
                "{count}: Redis {:.0} µs, PostgreSQL {:.0} µs, loaded in {:?}",
                figures.redis, figures.postgres, figures.loaded
            );
            measured.push(figures);
        }
        measured
    });
    let [small, some, many, most] = &measured[..] else { unreachable!("one figure a size") };
    let all = |of: fn(&Figures) -> f64| {
        SIZES
            .iter()
            .zip(&measured)
            .map(|(size, figures)| format!("{size}: {:.0} µs", of(figures)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        Row {
            name: "nearest",
            what: "nearest by Redis at 1,000,000 drivers ÷ at 10,000".to_owned(),
            ratio: most.redis / some.redis,
            target: Some(Target::AtMost(2.0, 1.2)),
            detail: all(|figures| figures.redis),
        },
        Row {
            name: "nearest",
            what: "nearest by PostgreSQL ÷ by Redis, at 100,000 drivers".to_owned(),
            ratio: many.postgres / many.redis,
            target: Some(Target::AtMost(5.0, 3.0)),
            detail: all(|figures| figures.postgres),
        },
        Row {
            name: "nearest",
            what: "warm-up: drivers a second read into Redis, at 1,000,000 ÷ at 1,000".to_owned(),
            ratio: (SIZES[3] as f64 / most.loaded.as_secs_f64()) / (SIZES[0] as f64 / small.loaded.as_secs_f64()),
            target: None,
            detail: format!(
                "100,000 in {:.1} s, 1,000,000 in {:.1} s",
                many.loaded.as_secs_f64(),
                most.loaded.as_secs_f64()
            ),
        },
    ]
}
