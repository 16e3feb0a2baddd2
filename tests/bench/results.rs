//! What was found.

use serde::Serialize;

use crate::interrupt;
use crate::machine::Machine;
use crate::peers::Peer;
use crate::progress;
use crate::wrk::Sample;

#[derive(Serialize)]
pub struct Results {
    pub machine: Machine,
    pub rounds: u32,
    pub seconds: u32,
    pub speeds: Vec<Speed>,
    pub figures: Vec<Figures>,
}

/// What wrk found of one server under one load.
#[derive(Serialize)]
pub struct Speed {
    pub load: String,
    pub server: &'static str,
    /// Whether it is threadkv's.
    pub ours: bool,
    pub samples: Vec<Sample>,
    /// Why there are no more of them.
    pub error: Option<String>,
}

impl Speed {
    /// The median of something in the samples; none where a measurement has failed.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        if self.error.is_some() {
            return None;
        }
        median(self.samples.iter().map(of).collect())
    }

    /// How many times as much of something as the other server has, which was measured in turn with this one: the median of
    /// the ratios of each round, since the machine may be another one, to all of them, in the next.
    pub fn ratio(&self, other: &Speed, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        if self.error.is_some() || other.error.is_some() {
            return None;
        }
        let rounds = self.samples.iter().zip(&other.samples);
        median(rounds.map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    }
}

/// Other figures of one server.
#[derive(Serialize)]
pub struct Figures {
    pub load: &'static str,
    pub server: &'static str,
    /// Whether it is threadkv's.
    pub ours: bool,
    pub figures: Vec<Figure>,
    pub error: Option<String>,
}

/// A figure, as it was in each round.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
}

impl Figure {
    pub fn once(name: &'static str, unit: &'static str, figure: f64) -> Figure {
        Figure {
            name,
            unit,
            rounds: vec![figure],
        }
    }

    pub fn median(&self) -> Option<f64> {
        median(self.rounds.clone())
    }
}

impl Results {
    /// What wrk found of a server under a load.
    pub fn speed(&self, load: &str, server: &str) -> Option<&Speed> {
        let mut speeds = self.speeds.iter();
        speeds.find(|speed| speed.load == load && speed.server == server)
    }

    /// What wrk found of one server, by what it found of another under the same load.
    pub fn speed_ratio(
        &self,
        load: &str,
        [server, other]: [&str; 2],
        of: impl Fn(&Sample) -> f64,
    ) -> Option<f64> {
        self.speed(load, server)?
            .ratio(self.speed(load, other)?, of)
    }

    /// The median of another figure.
    pub fn figure(&self, load: &str, server: &str, name: &str) -> Option<f64> {
        let mut all = self.figures.iter();
        let found = all.find(|figures| figures.load == load && figures.server == server)?;
        found
            .figures
            .iter()
            .find(|figure| figure.name == name)?
            .median()
    }
}

/// The one in the middle, or the mean of the two.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = figures.get(middle)?;
    match figures.len() % 2 {
        0 => Some((figures[middle - 1] + upper) / 2.0),
        _ => Some(*upper),
    }
}

impl Figures {
    /// Finds figures of each peer that is installed. What fails for one of them is in its result.
    pub fn of_each(
        load: &'static str,
        peers: &[Peer],
        mut find: impl FnMut(Peer) -> Result<Vec<Figure>, String>,
    ) -> Result<Vec<Figures>, String> {
        let mut all = Vec::new();
        let installed = |peer: &&Peer| peer.missing_package().is_none();
        for &peer in peers.iter().filter(installed) {
            progress::show(&format!("{load}: {}", peer.name()));
            let found = find(peer);
            interrupt::check()?;
            let (figures, error) = match found {
                Ok(figures) => (figures, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            all.push(Figures {
                load,
                server: peer.name(),
                ours: peer.is_ours(),
                figures,
                error,
            });
        }
        Ok(all)
    }
}
