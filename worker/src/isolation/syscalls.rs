//! The system calls that no compiler makes, and that break out of things: refused by a filter in the kernel.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Refused with ENOSYS, as if the kernel had none of them: who hears that of `clone3` takes `clone`, and one answer takes one
/// filter, which the kernel is to compile for each tool.
const REFUSED: &[libc::c_long] = &[
    // Other places, and other views of places.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // The kernel itself, and its parts with a history.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    // Its flags are in memory, where no filter sees them.
    libc::SYS_clone3,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Namespaces that a new process could be in.
const NEW: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Kinds of sockets that a network namespace is a fence to. Of the others, some reach the machine around a virtual one.
const SOCKETS: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// On x86_64 each call has a second number, for programs with short pointers.
#[cfg(target_arch = "x86_64")]
const SHORT_POINTERS: libc::c_long = 0x4000_0000;

/// Refuses the calls to this process and those it starts.
pub(super) fn refuse() -> io::Result<()> {
    apply_filter(&filter()?).map_err(io::Error::other)
}

fn filter() -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| io::Error::other(format!("no filter is made for {} yet", std::env::consts::ARCH)))?;
    let mut refused: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let flag = |flag: i32| rule(vec![(Op::MaskedEq(flag as u64), flag as u64)]);
    refused.insert(libc::SYS_clone, NEW.into_iter().map(flag).collect::<io::Result<_>>()?);
    let others = SOCKETS.map(|family| (Op::Ne, family as u64)).to_vec();
    refused.insert(libc::SYS_socket, vec![rule(others)?]);
    #[cfg(target_arch = "x86_64")]
    let refused = refused
        .into_iter()
        .flat_map(|(number, rules)| [(number, rules.clone()), (number | SHORT_POINTERS, rules)])
        .collect();
    let refuse = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

/// All of these about a call's first argument.
fn rule(conditions: Vec<(Op, u64)>) -> io::Result<SeccompRule> {
    let conditions = conditions
        .into_iter()
        .map(|(op, value)| SeccompCondition::new(0, Len::Dword, op, value));
    let conditions = conditions.collect::<Result<_, _>>().map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_into_the_kernel() {
        // BPF_MAXINSNS.
        assert!(filter().unwrap().len() < 4096);
    }
}
