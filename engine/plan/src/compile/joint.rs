//! Edits that follow each other, made at once.
//!
//! The records are scanned and copied once for all of them. That is possible if each record becomes
//! what it becomes after one edit and then the next: no field is changed twice, and fields that are
//! added come in the same order. The expressions are evaluated one after the other in any case, so
//! a later one reads what an earlier one has set. Which step finds a record invalid is not known
//! from a joint edit: such a batch passes the steps one by one.

use pseidon_plugin::format::{FieldChange, Format};

use crate::chain::{ChainStep, JointEdit, Operator};

/// Joins the edits that follow each other in these steps.
pub(super) fn join_edits(steps: &mut [ChainStep], format: &dyn Format) {
    let mut rest = steps;
    while !rest.is_empty() {
        let changes = joint_changes(rest);
        let (these, others) = std::mem::take(&mut rest).split_at_mut(changes.len().max(1));
        if let [first, _, ..] = these
            && let Operator::Edit(edit) = &mut first.operator
        {
            let editor = format.editor(&changes.concat()).ok();
            edit.joint = editor.map(|editor| JointEdit {
                steps: changes.len(),
                editor,
            });
        }
        rest = others;
    }
}

/// The changes of the first steps that can be made at once, for each step.
fn joint_changes(steps: &[ChainStep]) -> Vec<Vec<FieldChange>> {
    let mut joint: Vec<Vec<FieldChange>> = Vec::new();
    for step in steps {
        let Operator::Edit(edit) = &step.operator else {
            break;
        };
        let fits = |later| joint.iter().flatten().all(|earlier| fit(earlier, later));
        if edit.changes.is_empty() || !edit.changes.iter().all(fits) {
            break;
        }
        joint.push(edit.changes.clone());
    }
    joint
}

/// Whether these changes of two steps can be made at once.
fn fit(earlier: &FieldChange, later: &FieldChange) -> bool {
    // A missing object is created where the first change inside it is. That is its place after two
    // steps too if the first one always creates it, or the second one never does.
    let keeps_place =
        matches!(earlier, FieldChange::Set { .. }) || matches!(later, FieldChange::Remove { .. });
    earlier.paths().all(|one| {
        later.paths().all(|other| {
            let overlaps = one.starts_with(other) || other.starts_with(one);
            !overlaps && (keeps_place || one.first() != other.first())
        })
    })
}
