//! What a disk may hold after a power cut: a model of files and directories that knows what has been synced.
//!
//! What was synced is there. Of what was written since to a file, each sector is there or not, and so is the new length. Of names
//! that were created, changed or removed since in a directory, each change has reached the disk or not. This allows more than
//! most file systems do, which keep the order of some of that.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::faults::Random;
use crate::trace::Call;

/// Flags of `open`.
const CREATE: u64 = 0o100;
const TRUNCATE: u64 = 0o1000;

/// How much of what was not synced has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    All,
    Nothing,
    /// What was done first, up to some place.
    First,
    /// Anything.
    Any,
}

/// What a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub names: Kept,
    pub bytes: Kept,
    pub lengths: Kept,
    /// What is written whole or not at all, in bytes.
    pub sector: usize,
}

/// A disk that has been written to.
pub struct Disk {
    nodes: Vec<Node>,
    /// Which node an open file is.
    open: HashMap<u32, usize>,
    root: PathBuf,
}

enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    /// What was done to it since, in this order.
    since: Vec<Change>,
    /// Its length after all of that.
    length: usize,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Default)]
struct Directory {
    synced: Names,
    since: Vec<Rename>,
    /// The names after all of that.
    names: Names,
}

type Names = BTreeMap<PathBuf, usize>;

/// A change of names: these go, and this one comes.
#[derive(Clone)]
struct Rename {
    goes: Option<PathBuf>,
    comes: Option<(PathBuf, usize)>,
}

impl Disk {
    /// An empty directory, which is synced.
    pub fn new(root: &Path) -> Disk {
        Disk {
            nodes: vec![Node::Directory(Directory::default())],
            open: HashMap::new(),
            root: root.to_owned(),
        }
    }

    /// The process has ended, and another one opens other files.
    pub fn end_process(&mut self) {
        self.open.clear();
    }

    /// Does what a call did.
    pub fn apply(&mut self, call: &Call) {
        if call.result < 0 {
            return;
        }
        match call.name {
            "create" | "open" => {
                let node = match self.find(&call.path) {
                    Some(node) => node,
                    None => {
                        assert!(call.length & CREATE != 0, "{call:?}");
                        self.create(&call.path, Node::File(File::default()))
                    }
                };
                if call.length & TRUNCATE != 0 {
                    self.file(node).change(Change::Truncate(0));
                }
                self.open.insert(call.file, node);
            }
            "mkdir" => {
                self.create(&call.path, Node::Directory(Directory::default()));
            }
            "write" | "pwrite" => {
                let change = Change::Write(call.offset as usize, call.data.clone());
                self.change_open(call, change);
            }
            "truncate" => self.change_open(call, Change::Truncate(call.length as usize)),
            "fsync" | "fdatasync" => match &mut self.nodes[self.open[&call.file]] {
                Node::File(file) => file.sync(),
                Node::Directory(directory) => directory.sync(),
            },
            "rename" => {
                let node = self.find(&call.path).unwrap();
                assert_eq!(call.path.parent(), call.target.parent(), "not modelled");
                self.change_names(Some(&call.path), Some((&call.target, node)));
            }
            "unlink" | "rmdir" => self.change_names(Some(&call.path), None),
            "opendir" | "read" | "pread" => {}
            name => panic!("{name} is not modelled"),
        }
    }

    /// The node of a path, as programs see it.
    fn find(&self, path: &Path) -> Option<usize> {
        let below = path.strip_prefix(&self.root).unwrap();
        below
            .iter()
            .try_fold(0, |node, name| match &self.nodes[node] {
                Node::Directory(directory) => directory.names.get(Path::new(name)).copied(),
                Node::File(_) => None,
            })
    }

    fn create(&mut self, path: &Path, node: Node) -> usize {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.change_names(None, Some((path, number)));
        number
    }

    fn change_names(&mut self, goes: Option<&Path>, comes: Option<(&Path, usize)>) {
        let path = goes.or(comes.map(|(path, _)| path)).unwrap();
        let parent = self.find(path.parent().unwrap()).unwrap();
        let name = |path: &Path| PathBuf::from(path.file_name().unwrap());
        let rename = Rename {
            goes: goes.map(name),
            comes: comes.map(|(path, node)| (name(path), node)),
        };
        let Node::Directory(directory) = &mut self.nodes[parent] else {
            panic!("{path:?} is in no directory");
        };
        rename.apply(&mut directory.names);
        directory.since.push(rename);
    }

    fn file(&mut self, node: usize) -> &mut File {
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Directory(_) => panic!("a directory is written to"),
        }
    }

    fn change_open(&mut self, call: &Call, change: Change) {
        let node = self.open[&call.file];
        let file = self.file(node);
        file.change(change);
        assert_eq!(file.length as i64, call.file_length, "{call:?}");
    }

    /// All files that a power cut now may leave, with their paths below the root.
    pub fn cut(&self, cut: Cut, random: &mut Random) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        self.collect(0, Path::new(""), cut, random, &mut files);
        files
    }

    fn collect(
        &self,
        node: usize,
        path: &Path,
        cut: Cut,
        random: &mut Random,
        files: &mut Vec<(PathBuf, Vec<u8>)>,
    ) {
        match &self.nodes[node] {
            Node::File(file) => files.push((path.to_owned(), file.cut(cut, random))),
            Node::Directory(directory) => {
                for (name, node) in directory.cut(cut.names, random) {
                    self.collect(node, &path.join(name), cut, random, files);
                }
            }
        }
    }
}

impl Rename {
    fn apply(&self, names: &mut Names) {
        if let Some(name) = &self.goes {
            names.remove(name);
        }
        if let Some((name, node)) = &self.comes {
            names.insert(name.clone(), *node);
        }
    }
}

impl Directory {
    fn sync(&mut self) {
        self.synced = self.names.clone();
        self.since.clear();
    }

    fn cut(&self, kept: Kept, random: &mut Random) -> Names {
        let mut names = self.synced.clone();
        let first = kept.first(self.since.len(), random);
        for (number, rename) in self.since.iter().enumerate() {
            let applies = match kept {
                Kept::Any => random.chance(),
                _ => number < first,
            };
            if applies {
                rename.apply(&mut names);
            }
        }
        names
    }
}

impl Kept {
    /// How many of so many changes are kept, if the first ones are.
    fn first(self, count: usize, random: &mut Random) -> usize {
        match self {
            Kept::All => count,
            Kept::Nothing => 0,
            Kept::First | Kept::Any => random.below(count + 1),
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        self.length = change.length_after(self.length);
        self.since.push(change);
    }

    fn sync(&mut self) {
        let all = Cut {
            names: Kept::All,
            bytes: Kept::All,
            lengths: Kept::All,
            sector: 512,
        };
        self.synced = self.cut(all, &mut Random::new(0));
        self.since.clear();
    }

    /// What may be on disk. A sector has what it had after some change, and none of the later ones.
    fn cut(&self, cut: Cut, random: &mut Random) -> Vec<u8> {
        let count = self.since.len();
        let lengths = cut.lengths.first(count, random);
        let all_first = cut.bytes.first(count, random);
        // Changes that are kept in a sector, by its number.
        let mut kept = HashMap::new();
        let mut kept_in = |sector: usize, random: &mut Random| match cut.bytes {
            Kept::Any => *kept.entry(sector).or_insert_with(|| match random.below(4) {
                0 => random.below(count + 1),
                1 => 0,
                _ => count,
            }),
            _ => all_first,
        };
        let mut bytes = self.synced.clone();
        for (number, change) in self.since.iter().enumerate() {
            let (start, end) = match change {
                Change::Write(offset, data) => (*offset, offset + data.len()),
                Change::Truncate(to) => (*to, bytes.len().max(*to)),
            };
            bytes.resize(bytes.len().max(end), 0);
            let mut from = start;
            while from < end {
                let sector = from / cut.sector;
                let to = end.min((sector + 1) * cut.sector);
                let is_kept = number < kept_in(sector, random);
                match change {
                    Change::Write(offset, data) if is_kept => {
                        bytes[from..to].copy_from_slice(&data[from - offset..to - offset]);
                    }
                    // What a file was cut to does not come back when it grows again.
                    Change::Truncate(_) if is_kept || number < lengths => bytes[from..to].fill(0),
                    _ => {}
                }
                from = to;
            }
        }
        bytes.resize(self.length_on_disk(cut.lengths, lengths, random), 0);
        bytes
    }

    /// The length after so many changes; or a file that grows gets there page by page.
    fn length_on_disk(&self, kept: Kept, changes: usize, random: &mut Random) -> usize {
        let mut since = self.since.iter();
        let before = since.by_ref().take(changes);
        let length = before.fold(self.synced.len(), |length, it| it.length_after(length));
        match since.next() {
            Some(next) if kept == Kept::Any => {
                let more = next.length_after(length).saturating_sub(length);
                length + random.below(more / 4096 + 1) * 4096
            }
            _ => length,
        }
    }
}

impl Change {
    fn length_after(&self, length: usize) -> usize {
        match self {
            Change::Write(offset, data) => length.max(offset + data.len()),
            Change::Truncate(length) => *length,
        }
    }
}
