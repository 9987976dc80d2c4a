use std::io::Write;

use super::*;

fn at(lat: f64, lon: f64) -> Position {
    Position::new(lat, lon).unwrap()
}

/// A temporary file that is removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("{}-{}-{name}", std::process::id(), uuid::Uuid::now_v7()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn gzip(name: &str, text: &str) -> Self {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        Self::new(name, &packed.finish().unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const MOVEMENT: &str = "driver,t_s,lat,lon,occupied\n\
    a,100,37.70,-122.40,0\nb,40,37.72,-122.42,1\na,160,37.71,-122.40,1\na,1000,37.75,-122.45,0\n\
    a,nonsense,1,2,0\nc,10,37.7,-122.4,0\nb,400,37.73,-122.42,1\n";
const DEMAND: &str = "t_s,lat,lon\n60,40.72,-74.00\n120,40.75,-73.98\n180,40.75,-73.98\n20,40.70,-74.01\n";

fn load(drivers: &Scratch, orders: &Scratch, start_s: Option<f64>, fit: FitOrders) -> Recording {
    let (drivers_csv, orders_csv) = (Some(drivers.0.clone()), Some(orders.0.clone()));
    Recording::load(&RecordingOptions { drivers_csv, orders_csv, start_s, fit, seed: 1 }).unwrap()
}

#[test]
fn plain_and_gzip_files_load_alike_and_demand_moves_to_the_drivers() {
    let plain = (Scratch::new("m.csv", MOVEMENT.as_bytes()), Scratch::new("d.csv", DEMAND.as_bytes()));
    let packed = (Scratch::gzip("m.csv.gz", MOVEMENT), Scratch::gzip("d.csv.gz", DEMAND));
    let one = load(&plain.0, &plain.1, None, FitOrders::Auto);
    let two = load(&packed.0, &packed.1, None, FitOrders::Auto);
    assert_eq!((&one.traces, &one.orders), (&two.traces, &two.orders));

    assert_eq!(one.start_s, 20.0, "the start is the later of the two beginnings");
    assert_eq!(
        one.traces.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"],
        "the trace c has ended before the start"
    );
    assert_eq!(one.orders.iter().map(|o| o.t_s).collect::<Vec<_>>(), [0.0, 40.0, 100.0, 160.0]);
    for order in &one.orders {
        assert!((37.6..37.8).contains(&order.pickup.lat()), "{order:?}");
        assert!(order.pickup.distance_m(&order.drop) > 100.0, "{order:?}");
    }
    assert!(one.notes.iter().any(|note| note.contains("moved")), "{:?}", one.notes);
    assert!(one.notes.iter().any(|note| note.contains("1 of 7 rows")), "{:?}", one.notes);
    assert_eq!(one.orders[0].drop, one.orders[1].pickup);
}

#[test]
fn a_start_time_cuts_the_recording_and_fitting_can_be_turned_off() {
    let files = (Scratch::new("m.csv", MOVEMENT.as_bytes()), Scratch::new("d.csv", DEMAND.as_bytes()));
    let cut = load(&files.0, &files.1, Some(150.0), FitOrders::Never);
    assert_eq!(cut.orders.len(), 1);
    assert_eq!(cut.orders[0].pickup, at(40.75, -73.98));
    assert_eq!(cut.traces[0].fixes()[0].0, -50.0);
}

#[test]
fn errors_name_the_missing_column_and_the_start_time() {
    let headless = Scratch::new("m.csv", b"driver,lat,lon\na,1,2\n");
    let drivers_csv = Some(headless.0.clone());
    let error =
        Recording::load(&RecordingOptions { drivers_csv, ..RecordingOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("\"t_s\""), "{error}");
    let late = Scratch::new("d.csv", DEMAND.as_bytes());
    let options = RecordingOptions { orders_csv: Some(late.0.clone()), start_s: Some(3600.0), ..Default::default() };
    let error = Recording::load(&options).unwrap_err().to_string();
    assert!(error.contains("01:00:00"), "{error}");
}

#[test]
fn a_trace_interpolates_between_fixes_and_has_breaks() {
    let trace = Trace::new(
        "a",
        vec![(160.0, at(1.0, 0.0)), (100.0, at(0.0, 0.0)), (1000.0, at(2.0, 0.0)), (1100.0, at(3.0, 0.0))],
    )
    .unwrap();
    assert_eq!(trace.at(40.0), Sighting::Before(60.0));
    assert_eq!(trace.at(130.0), Sighting::At(at(0.5, 0.0)));
    assert_eq!(trace.at(400.0), Sighting::Gap(at(1.0, 0.0), 600.0));
    assert_eq!(trace.at(1100.0), Sighting::Over(at(3.0, 0.0)));
    assert_eq!(trace.moving_for_s(120.0), 40.0);
    assert_eq!(trace.moving_for_s(1050.0), 50.0);
    assert!(Trace::new("b", vec![(f64::NAN, at(0.0, 0.0))]).is_none());
}
