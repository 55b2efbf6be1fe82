//! What a lab writes down under `/run/fourwave-lab`, so that another process can use it, and
//! remove it after a crash.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::Side;
use super::config::LabConfig;
use super::error::LabError;
use super::process::ProcessRef;

/// Every lab has a folder of its name in here.
const LABS_DIR: &str = "/run/fourwave-lab";

/// A program that the lab started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// What it is here for; unique in the lab.
    pub role: String,
    /// Which process.
    pub process: ProcessRef,
    /// Its output.
    pub log: PathBuf,
}

/// A daemon instance, to be released should it crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) side: Side,
    pub(super) binary: PathBuf,
    pub(super) config: PathBuf,
}

/// The contents of `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) config: LabConfig,
    /// Who removes the lab; nobody when it is persistent.
    pub(super) owner: Option<ProcessRef>,
    pub(super) processes: Vec<Recorded>,
    pub(super) instances: Vec<Instance>,
    /// What the builder wants to remember.
    pub(super) note: String,
}

impl State {
    pub(super) fn new(config: LabConfig) -> State {
        let owner = (!config.persistent).then(ProcessRef::current);
        State { config, owner, processes: Vec::new(), instances: Vec::new(), note: String::new() }
    }

    /// The state of lab `name`; `None` when there is none. One that cannot be read (a crash in
    /// the middle of writing cannot leave that, another version can) is an error.
    pub(super) fn load(name: &str) -> Result<Option<State>, LabError> {
        let path = folder(name).join("state.json");
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => Ok(Some(state)),
                Err(error) => Err(LabError::File { path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LabError::File { path, source }),
        }
    }

    /// Replaces the file in one step.
    pub(super) fn save(&self) -> Result<(), LabError> {
        let folder = folder(&self.config.name);
        fs::create_dir_all(&folder).map_err(LabError::file(&folder))?;
        let (path, draft) = (folder.join("state.json"), folder.join("state.json.new"));
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| fs::write(&draft, text))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(LabError::file(&path))
    }

    /// Whether the process that must remove this lab has gone without doing so.
    pub(super) fn is_orphan(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive())
    }
}

/// The folder of lab `name`.
pub(super) fn folder(name: &str) -> PathBuf {
    Path::new(LABS_DIR).join(name)
}

/// Names of all labs that have written something down.
pub(super) fn names() -> Result<Vec<String>, LabError> {
    let entries = match fs::read_dir(LABS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::file(LABS_DIR)(error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// One lab is built or removed at a time on this machine, until the handle is dropped.
pub(super) fn lock() -> Result<File, LabError> {
    super::require_root()?;
    fs::create_dir_all(LABS_DIR).map_err(LabError::file(LABS_DIR))?;
    let folder = File::open(LABS_DIR).map_err(LabError::file(LABS_DIR))?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive)
        .map_err(|error| LabError::file(LABS_DIR)(error.into()))?;
    Ok(folder)
}
