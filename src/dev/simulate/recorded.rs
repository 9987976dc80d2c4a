//! Loads recorded movement and demand from CSV files (plain or gzip), cuts them to a start time and moves the demand to
//! where the drivers are.
//!
//! A movement file has the header `driver,t_s,lat,lon`, a demand file `t_s,lat,lon`. More columns and any order of columns
//! are allowed. In the files `t_s` is seconds since midnight. In the result it is seconds since the start time, so that the
//! run begins at 0 s.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rand::{SeedableRng, rngs::StdRng};

use super::geo;
use crate::domain::position::{BoundingBox, Position};

/// A gap of at least this many seconds in a trace is a break. The route within a break is unknown.
const GAP_S: f64 = 300.0;
/// The maximum number of rows. A larger file is refused as a mistake.
const MAX_ROWS: usize = 5_000_000;
/// The maximum number of bytes, after unpacking, that are read of a file.
const MAX_BYTES: u64 = 1 << 30;
/// The minimum distance between pickup and drop.
const MIN_TRIP_M: f64 = 200.0;

/// Why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file is missing or not readable.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not valid CSV.
    #[error("cannot read {}: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: csv::Error,
    },
    /// The header lacks a column.
    #[error("{} has no column \"{column}\" in its header", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
    },
    /// The file has more than the maximum number of rows.
    #[error("{} has more than {MAX_ROWS} rows", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file has no valid row at or after the start time.
    #[error("{} has no usable row at or after {}", path.display(), clock_text(*start_s))]
    Empty {
        /// The file.
        path: PathBuf,
        /// The start time, in seconds since midnight.
        start_s: f64,
    },
}

/// The recorded route of one driver. Times are seconds since the start of the replay, ascending. They may begin before 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The name in the recording.
    pub name: String,
    /// Time in seconds and position; at least one entry.
    fixes: Vec<(f64, Position)>,
}

/// What a trace holds for a given time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sighting {
    /// The trace begins in this many seconds.
    Before(f64),
    /// The driver is at this position.
    At(Position),
    /// The trace has a break: the last position, and the seconds until the break ends.
    Gap(Position, f64),
    /// The trace has ended at this position.
    Over(Position),
}

impl Trace {
    /// Sorts the fixes by time. Returns `None` without a fix.
    pub fn new(name: impl Into<String>, mut fixes: Vec<(f64, Position)>) -> Option<Self> {
        fixes.retain(|(t_s, _)| t_s.is_finite());
        fixes.sort_by(|a, b| a.0.total_cmp(&b.0));
        fixes.dedup_by(|later, earlier| later.0 == earlier.0);
        (!fixes.is_empty()).then(|| Self { name: name.into(), fixes })
    }

    /// Returns the fixes, oldest first.
    pub fn fixes(&self) -> &[(f64, Position)] {
        &self.fixes
    }

    /// Returns where the driver was at `t_s`. Between two fixes it is the point on the straight line, unless they are 5 minutes
    /// or more apart.
    pub(super) fn at(&self, t_s: f64) -> Sighting {
        let next = self.fixes.partition_point(|(fix_s, _)| *fix_s <= t_s);
        let Some(previous) = next.checked_sub(1) else { return Sighting::Before(self.fixes[0].0 - t_s) };
        let (from_s, from) = self.fixes[previous];
        let Some(&(to_s, to)) = self.fixes.get(next) else { return Sighting::Over(from) };
        if to_s - from_s >= GAP_S {
            Sighting::Gap(from, to_s - t_s)
        } else {
            Sighting::At(geo::between(from, to, (t_s - from_s) / (to_s - from_s)))
        }
    }

    /// Returns the seconds from `t_s` to the next break or the end, for a driver that is moving at `t_s`.
    pub(super) fn moving_for_s(&self, t_s: f64) -> f64 {
        let first = self.fixes.partition_point(|(fix_s, _)| *fix_s <= t_s).saturating_sub(1);
        let run = self.fixes[first..].windows(2).take_while(|pair| pair[1].0 - pair[0].0 < GAP_S).count();
        (self.fixes[first + run].0 - t_s).max(0.0)
    }
}

/// One recorded order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordedOrder {
    /// Seconds from the start of the replay.
    pub t_s: f64,
    /// The position of the pickup.
    pub pickup: Position,
    /// The position of the drop.
    pub drop: Position,
}

/// Whether demand is moved to where the drivers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FitOrders {
    /// Moves the demand when the two areas do not overlap.
    #[default]
    Auto,
    /// Always moves the demand.
    Always,
    /// Never moves the demand.
    Never,
}

/// The files to load and how to load them.
#[derive(Clone, Debug, Default)]
pub struct RecordingOptions {
    /// The file with the movement.
    pub drivers_csv: Option<PathBuf>,
    /// The file with the demand.
    pub orders_csv: Option<PathBuf>,
    /// The start time in seconds since midnight. Without it: the earliest time at which every given file has begun.
    pub start_s: Option<f64>,
    /// Whether demand is moved to where the drivers are.
    pub fit: FitOrders,
    /// The seed for random drops.
    pub seed: u64,
}

/// The loaded recording.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The traces that have a fix after the start, in the order of the file. Empty without a file.
    pub traces: Vec<Trace>,
    /// The orders at or after the start, oldest first. Empty without a file.
    pub orders: Vec<RecordedOrder>,
    /// The time of day at which the replay begins, in seconds since midnight.
    pub start_s: f64,
    /// The box where most of the movement or demand lies. `None` when nothing was loaded.
    pub area: Option<BoundingBox>,
    /// Notes for the reader: rows that were skipped, demand that was moved.
    pub notes: Vec<String>,
}

impl Recording {
    /// Reads the files and cuts them to the start time.
    pub fn load(options: &RecordingOptions) -> Result<Self, RecordingError> {
        let mut notes = Vec::new();
        let traces = options.drivers_csv.as_deref().map(|path| read_traces(path, &mut notes)).transpose()?;
        let demand = options.orders_csv.as_deref().map(|path| read_demand(path, &mut notes)).transpose()?;
        let first_fix = traces.iter().flatten().map(|trace| trace.fixes[0].0).min_by(f64::total_cmp);
        let first_order = demand.iter().flatten().map(|(t_s, _)| *t_s).next();
        let start_s = options.start_s.unwrap_or_else(|| first_fix.unwrap_or(0.0).max(first_order.unwrap_or(0.0)));
        let traces = begin_at(traces.unwrap_or_default(), start_s);
        if let Some(path) = options.drivers_csv.as_ref().filter(|_| traces.is_empty()) {
            return Err(RecordingError::Empty { path: path.clone(), start_s });
        }
        let mut demand = demand.unwrap_or_default();
        demand.retain(|(t_s, _)| *t_s >= start_s);
        demand.iter_mut().for_each(|(t_s, _)| *t_s -= start_s);
        if let Some(path) = options.orders_csv.as_ref().filter(|_| demand.is_empty()) {
            return Err(RecordingError::Empty { path: path.clone(), start_s });
        }
        let roads = geo::central_box(traces.iter().flat_map(|trace| trace.fixes.iter().map(|(_, place)| *place)));
        if let Some(note) = fit_demand(&mut demand, roads.as_ref(), options.fit) {
            notes.push(note);
        }
        let area = roads.or_else(|| geo::central_box(demand.iter().map(|(_, place)| *place)));
        let orders = area.as_ref().map(|area| with_drops(&demand, area, options.seed)).unwrap_or_default();
        notes.push(format!("the clock of the recording starts at {}", clock_text(start_s)));
        Ok(Self { traces, orders, start_s, area, notes })
    }
}

/// Formats seconds since midnight as `HH:MM:SS`.
pub(super) fn clock_text(t_s: f64) -> String {
    let whole = t_s.max(0.0) as u64;
    format!("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

fn begin_at(traces: Vec<Trace>, start_s: f64) -> Vec<Trace> {
    let shifted = traces.into_iter().map(|mut trace| {
        trace.fixes.iter_mut().for_each(|(t_s, _)| *t_s -= start_s);
        trace
    });
    shifted.filter(|trace| trace.fixes.last().is_some_and(|(t_s, _)| *t_s > 0.0)).collect()
}

/// Moves demand into the box of the movement, by the rule `fit`. Returns a note for the reader.
fn fit_demand(demand: &mut [(f64, Position)], roads: Option<&BoundingBox>, fit: FitOrders) -> Option<String> {
    let roads = roads?;
    let from = geo::central_box(demand.iter().map(|(_, place)| *place))?;
    let apart = !geo::overlap(&from, roads);
    if fit == FitOrders::Never || (fit == FitOrders::Auto && !apart) {
        return apart.then(|| "orders lie where no driver drives; they are not moved".to_owned());
    }
    demand.iter_mut().for_each(|(_, place)| *place = geo::fit(*place, &from, roads));
    let (old, new) = (geo::circle_in(&from).0, geo::circle_in(roads).0);
    Some(format!(
        "orders are moved from around {:.2},{:.2} into the box where 90 % of the movement is, around {:.2},{:.2}",
        old.lat(),
        old.lon(),
        new.lat(),
        new.lon()
    ))
}

/// Gives each order a drop: the pickup of the next order, or a random point if that is nearer than [`MIN_TRIP_M`].
fn with_drops(demand: &[(f64, Position)], area: &BoundingBox, seed: u64) -> Vec<RecordedOrder> {
    let mut rng = StdRng::seed_from_u64(seed);
    let next_pickups = demand.iter().skip(1).map(|(_, place)| Some(*place)).chain([None]);
    let orders = demand.iter().zip(next_pickups).map(|(&(t_s, pickup), next)| {
        let far_enough = next.filter(|next| next.distance_m(&pickup) >= MIN_TRIP_M);
        RecordedOrder { t_s, pickup, drop: far_enough.unwrap_or_else(|| geo::random_in_box(&mut rng, area)) }
    });
    orders.collect()
}

fn read_traces(path: &Path, notes: &mut Vec<String>) -> Result<Vec<Trace>, RecordingError> {
    let mut names: Vec<String> = Vec::new();
    let mut fixes: HashMap<String, Vec<(f64, Position)>> = HashMap::new();
    read_rows(path, Some("driver"), notes, |name, t_s, place| {
        if !fixes.contains_key(name) {
            names.push(name.to_owned());
        }
        fixes.entry(name.to_owned()).or_default().push((t_s, place));
    })?;
    Ok(names.into_iter().filter_map(|name| fixes.remove(&name).and_then(|own| Trace::new(name, own))).collect())
}

fn read_demand(path: &Path, notes: &mut Vec<String>) -> Result<Vec<(f64, Position)>, RecordingError> {
    let mut demand = Vec::new();
    read_rows(path, None, notes, |_, t_s, place| demand.push((t_s, place)))?;
    demand.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(demand)
}

/// Passes every valid row to `keep` and adds a note with the number of invalid rows.
fn read_rows(
    path: &Path,
    name_column: Option<&'static str>,
    notes: &mut Vec<String>,
    mut keep: impl FnMut(&str, f64, Position),
) -> Result<(), RecordingError> {
    let csv_error = |source| RecordingError::Csv { path: path.to_owned(), source };
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(open(path)?.take(MAX_BYTES));
    let header = reader.headers().map_err(csv_error)?.clone();
    let column = |column: &'static str| {
        let found = header.iter().position(|name| name.trim_start_matches('\u{feff}').eq_ignore_ascii_case(column));
        found.ok_or_else(|| RecordingError::Column { path: path.to_owned(), column })
    };
    let name_at = name_column.map(column).transpose()?;
    let (t_at, lat_at, lon_at) = (column("t_s")?, column("lat")?, column("lon")?);
    let (mut rows, mut skipped) = (0usize, 0usize);
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(csv_error)? {
        rows += 1;
        if rows > MAX_ROWS {
            return Err(RecordingError::TooLong { path: path.to_owned() });
        }
        let number = |at: usize| row.get(at).and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite());
        let name = name_at.map_or(Some(""), |at| row.get(at).filter(|name| !name.is_empty()));
        let place = number(lat_at).zip(number(lon_at)).and_then(|(lat, lon)| Position::new(lat, lon).ok());
        match (name, number(t_at), place) {
            (Some(name), Some(t_s), Some(place)) => keep(name, t_s, place),
            _ => skipped += 1,
        }
    }
    if skipped > 0 {
        notes.push(format!("{}: {skipped} of {rows} rows are invalid and were skipped", path.display()));
    }
    Ok(())
}

/// Opens a file and unpacks it if it begins with the magic bytes of gzip.
fn open(path: &Path) -> Result<Box<dyn Read>, RecordingError> {
    let io_error = |source| RecordingError::Io { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(io_error)?);
    let gzip = file.fill_buf().map_err(io_error)?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests;
