//! A row of the table: what was said and what was true, in each round, and whether they are as near to
//! each other as they must be.

/// How far what is said may be from what is true.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// In percent of what is true.
    Percent(f64),
    /// By this much.
    Within(f64),
    /// Not at all.
    Exact,
    /// It is shown only.
    Shown,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// What measures it independently.
    pub against: &'static str,
    pub unit: &'static str,
    pub bound: Bound,
}

pub const fn row(name: &'static str, against: &'static str, unit: &'static str, bound: Bound) -> Row {
    Row { name, against, unit, bound }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Measured {
    pub row: &'static str,
    pub said: f64,
    pub truth: f64,
    /// By how many percent chance moves what is said: one standard deviation.
    pub chance: f64,
}

pub fn measured(row: &'static str, said: f64, truth: f64) -> Measured {
    Measured { row, said, truth, chance: 0.0 }
}

impl Measured {
    /// One that is made of this many samples.
    pub fn of_samples(self, samples: f64) -> Measured {
        Measured { chance: 100.0 / samples.max(1.0).sqrt(), ..self }
    }

    fn error(&self, bound: Bound) -> f64 {
        let off = self.said - self.truth;
        match bound {
            Bound::Percent(_) if off == 0.0 => 0.0,
            Bound::Percent(_) => 100.0 * off / self.truth,
            Bound::Within(_) | Bound::Exact | Bound::Shown => off,
        }
    }
}

/// A row with its errors.
#[derive(Debug)]
pub struct RowResult {
    pub row: Row,
    pub rounds: usize,
    pub said: f64,
    pub truth: f64,
    pub median: f64,
    pub worst: f64,
    pub kept: bool,
}

/// The rule: the median error is within the bound, for chance moves it both ways; each error is within the
/// bound and three standard deviations of chance.
pub fn tell(rows: &[Row], all: &[Measured]) -> Vec<RowResult> {
    for one in all {
        assert!(rows.iter().any(|row| row.name == one.row), "no row for {one:?}");
    }
    rows.iter().map(|row| told(*row, all.iter().filter(|one| one.row == row.name).collect())).collect()
}

fn told(row: Row, mine: Vec<&Measured>) -> RowResult {
    assert!(!mine.is_empty(), "{} was not measured", row.name);
    let errors: Vec<f64> = mine.iter().map(|one| one.error(row.bound)).collect();
    let bound = match row.bound {
        Bound::Percent(bound) | Bound::Within(bound) => bound,
        Bound::Exact => 0.0,
        Bound::Shown => f64::INFINITY,
    };
    let each = mine.iter().zip(&errors).all(|(one, error)| error.abs() <= bound + 3.0 * one.chance);
    let middle = median(errors.clone());
    RowResult {
        row,
        rounds: mine.len(),
        said: median(mine.iter().map(|one| one.said).collect()),
        truth: median(mine.iter().map(|one| one.truth).collect()),
        median: middle,
        worst: errors.into_iter().max_by(|one, other| one.abs().total_cmp(&other.abs())).unwrap(),
        kept: each && middle.abs() <= bound,
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}
