use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::Arch::{self, Aarch64, Ppc64le, S390x, X86_64};
use crate::names::{Cve, FunctionName, LivepatchName, ObjectName};
use crate::report::{ExternalizedSymbol, PatchedFunction};

const KALLSYMS: Flavour = Flavour::SuseKallsyms { module_mutex: false };
const MUTEX: Flavour = Flavour::SuseKallsyms { module_mutex: true };

fn author() -> Author {
    Author {
        name: "Ada Example".into(),
        mail: "ada@example.org".into(),
        company: "Example Works".into(),
        licence: Author::LICENCE.into(),
    }
}

fn object(name: &str) -> ObjectName {
    name.parse().unwrap()
}

fn patched(function: &str, prototype: &str) -> PatchedFunction {
    PatchedFunction {
        function: function.parse().unwrap(),
        replacement: format!("klpp_{function}").parse().unwrap(),
        prototype: prototype.into(),
        sympos: 0,
    }
}

fn symbol(symbol: &str, holder: &str, sympos: u32) -> ExternalizedSymbol {
    ExternalizedSymbol {
        symbol: symbol.into(),
        object: object(holder),
        variable: format!("klpe_{}", symbol.replace('.', "_")),
        sympos,
    }
}

fn facts(holder: &str, functions: &[(&str, u32)]) -> ArchFacts {
    let position = |(f, n): &(&str, u32)| (f.parse::<FunctionName>().unwrap(), *n);
    ArchFacts {
        object: object(holder),
        functions: functions.iter().map(position).collect(),
        symbols: BTreeMap::new(),
    }
}

fn file(path: &str, config: &str, archs: &[(Arch, ArchFacts)]) -> SourceFile {
    SourceFile {
        file: path.parse().unwrap(),
        config: config.parse().unwrap(),
        source: "/* the code */\n\n".into(),
        patched: Vec::new(),
        externalized: Vec::new(),
        flags: Vec::new(),
        platforms: archs.iter().cloned().collect(),
    }
}

/// A file of a module that needs symbols of both, and has a type of its own.
fn pcm(archs: &[Arch]) -> SourceFile {
    let facts = facts("snd-pcm", &[("snd_pcm_detach_substream", 2)]);
    let archs: Vec<_> = archs.iter().map(|arch| (*arch, facts.clone())).collect();
    let mut pcm = file("sound/core/pcm.c", "CONFIG_SND_PCM", &archs);
    pcm.patched = vec![
        patched(
            "snd_pcm_detach_substream",
            "void klpp_snd_pcm_detach_substream(struct snd_pcm_substream *s);",
        ),
        patched(
            "snd_pcm_avail",
            "snd_pcm_uframes_t klpp_snd_pcm_avail(struct snd_pcm_substream *s);",
        ),
    ];
    pcm.externalized = vec![
        symbol("register_mutex", "snd-pcm", 0),
        symbol("kallsyms_lookup", "vmlinux", 0),
        symbol("count.12", "vmlinux", 3),
    ];
    pcm
}

/// A file that is built in.
fn cmdline(archs: &[Arch]) -> SourceFile {
    let archs: Vec<_> = archs.iter().map(|arch| (*arch, facts("vmlinux", &[]))).collect();
    let mut cmdline = file("fs/proc/cmdline.c", "CONFIG_PROC_FS", &archs);
    cmdline.patched = vec![patched(
        "cmdline_proc_show",
        "int klpp_cmdline_proc_show(struct seq_file *m, void *v);",
    )];
    cmdline.externalized = vec![symbol("saved_command_line", "vmlinux", 0)];
    cmdline
}

/// Built in on some architectures, a module on another, with another position on a third.
fn drm() -> SourceFile {
    let here = facts("vmlinux", &[("drm_client_modeset_probe", 0)]);
    let archs = [
        (X86_64, here.clone()),
        (Ppc64le, here),
        (S390x, facts("drm", &[])),
        (Aarch64, facts("vmlinux", &[("drm_client_modeset_probe", 2)])),
    ];
    let mut drm = file("drivers/gpu/drm/drm_client_modeset.c", "CONFIG_DRM", &archs);
    drm.patched = vec![patched(
        "drm_client_modeset_probe",
        "int klpp_drm_client_modeset_probe(struct drm_client_dev *c, u32 w);",
    )];
    drm.externalized = vec![symbol("drm_client_pick_crtcs", "vmlinux", 0)];
    if let Some(s390) = drm.platforms.get_mut(&S390x) {
        let provider = Provider {
            object: object("drm"),
            sympos: 0,
        };
        s390.symbols.insert("drm_client_pick_crtcs".into(), provider);
    }
    drm
}

fn render(flavour: Flavour, archs: &[Arch], files: Vec<SourceFile>) -> Result<BTreeMap<String, String>, RenderError> {
    let name: LivepatchName = "bsc1197597".parse().unwrap();
    let cve: Cve = "2022-1048".parse().unwrap();
    livepatch(&LivepatchOutput {
        name: &name,
        cve: Some(&cve),
        flavour,
        author: &author(),
        year: 2026,
        archs: archs.iter().copied().collect(),
        files,
    })
}

/// All files in one text.
fn text(flavour: Flavour, archs: &[Arch], files: Vec<SourceFile>) -> String {
    let files = render(flavour, archs, files).unwrap();
    files.iter().map(|(name, text)| format!("==> {name}\n{text}")).collect()
}

#[test]
fn one_file_of_a_module() {
    let all = [X86_64, S390x];
    insta::assert_snapshot!("kallsyms_module", text(KALLSYMS, &all, vec![pcm(&all)]));
    insta::assert_snapshot!("kallsyms_mutex_module", text(MUTEX, &all, vec![pcm(&all)]));
    insta::assert_snapshot!("reloc_module", text(Flavour::SuseReloc, &all, vec![pcm(&all)]));
    insta::assert_snapshot!(
        "upstream_module",
        text(Flavour::Upstream, &[X86_64], vec![pcm(&[X86_64])])
    );
}

#[test]
fn one_file_of_vmlinux() {
    let all = [X86_64];
    insta::assert_snapshot!("kallsyms_vmlinux", text(KALLSYMS, &all, vec![cmdline(&all)]));
    insta::assert_snapshot!("kallsyms_mutex_vmlinux", text(MUTEX, &all, vec![cmdline(&all)]));
    let mut alone = cmdline(&all);
    alone.externalized.clear();
    insta::assert_snapshot!("kallsyms_nothing_hidden", text(KALLSYMS, &all, vec![alone.clone()]));
    insta::assert_snapshot!("upstream_nothing_hidden", text(Flavour::Upstream, &all, vec![alone]));
}

#[test]
fn two_files_of_which_one_is_not_everywhere() {
    let all = [X86_64, S390x];
    let files = || vec![pcm(&[X86_64]), cmdline(&all)];
    insta::assert_snapshot!("kallsyms_two", text(KALLSYMS, &all, files()));
    insta::assert_snapshot!("reloc_two", text(Flavour::SuseReloc, &all, files()));
    insta::assert_snapshot!("upstream_two", text(Flavour::Upstream, &all, files()));
}

#[test]
fn an_object_that_differs_by_architecture() {
    let all = [X86_64, S390x, Ppc64le, Aarch64];
    insta::assert_snapshot!("kallsyms_by_arch", text(KALLSYMS, &all, vec![drm()]));
    insta::assert_snapshot!("reloc_by_arch", text(Flavour::SuseReloc, &all, vec![drm()]));
    insta::assert_snapshot!("upstream_by_arch", text(Flavour::Upstream, &all, vec![drm()]));
    let files = render(KALLSYMS, &all, vec![drm()]).unwrap();
    assert_eq!(
        files["patched_funcs.csv"],
        "vmlinux drm_client_modeset_probe klpp_drm_client_modeset_probe defined(CONFIG_X86_64) || defined(CONFIG_PPC64)\n\
         drm drm_client_modeset_probe klpp_drm_client_modeset_probe defined(CONFIG_S390)\n\
         vmlinux drm_client_modeset_probe,2 klpp_drm_client_modeset_probe defined(CONFIG_ARM64)\n"
    );
    let mut fewer = drm();
    fewer.platforms.remove(&S390x);
    let files = render(KALLSYMS, &all, vec![fewer]).unwrap();
    assert_eq!(
        files["patched_funcs.csv"],
        "vmlinux drm_client_modeset_probe klpp_drm_client_modeset_probe (defined(CONFIG_X86_64) || defined(CONFIG_PPC64)) && IS_ENABLED(CONFIG_DRM)\n\
         vmlinux drm_client_modeset_probe,2 klpp_drm_client_modeset_probe defined(CONFIG_ARM64) && IS_ENABLED(CONFIG_DRM)\n"
    );
}

#[test]
fn names_of_one_object_with_dashes_or_without_are_one_object() {
    let mut pcm = pcm(&[X86_64, S390x]);
    if let Some(s390) = pcm.platforms.get_mut(&S390x) {
        s390.object = object("snd_pcm");
    }
    let files = render(KALLSYMS, &[X86_64, S390x], vec![pcm]).unwrap();
    assert!(
        !files["patched_funcs.csv"].contains("defined"),
        "{}",
        files["patched_funcs.csv"]
    );
}

#[test]
fn symbols_used_by_their_own_names_are_relocated_or_refused() {
    let mut pcm = pcm(&[X86_64]);
    pcm.externalized = vec![ExternalizedSymbol {
        variable: "register_mutex".into(),
        ..symbol("register_mutex", "snd-pcm", 2)
    }];
    let files = render(Flavour::SuseReloc, &[X86_64], vec![pcm.clone()]).unwrap();
    let source = &files["livepatch_bsc1197597.c"];
    let line =
        "extern typeof(register_mutex) register_mutex\n\tKLP_RELOC_SYMBOL_POS(snd_pcm, snd_pcm, register_mutex, 2);\n";
    assert!(source.ends_with(line), "{source}");
    for flavour in [KALLSYMS, Flavour::Upstream] {
        let refused = render(flavour, &[X86_64], vec![pcm.clone()]).unwrap_err();
        assert!(matches!(refused, RenderError::NeedsRelocation { .. }), "{refused}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(render(KALLSYMS, &[X86_64], vec![]), Err(RenderError::NoFile));
    let nowhere = render(KALLSYMS, &[X86_64], vec![pcm(&[])]).unwrap_err();
    assert_eq!(nowhere.to_string(), "sound/core/pcm.c: no architecture has this file");
    let mut other = pcm(&[X86_64]);
    other.file = "sound/core_pcm.c".parse().unwrap();
    let same = render(KALLSYMS, &[X86_64], vec![pcm(&[X86_64]), other]).unwrap_err();
    assert!(same.to_string().contains("sound_core_pcm.c"), "{same}");
    for (name, variable) in [("a\"b", "klpe_a"), ("a", "klpe_a; x"), ("", "klpe_")] {
        let mut odd = pcm(&[X86_64]);
        odd.externalized[0].symbol = name.into();
        odd.externalized[0].variable = variable.into();
        let refused = render(KALLSYMS, &[X86_64], vec![odd]).unwrap_err();
        assert!(matches!(refused, RenderError::OddSymbol { .. }), "{refused}");
    }
}

#[test]
fn a_codestream_s_name_says_its_flavour() {
    let of = |name: &str, ibt| Flavour::of(&name.parse().unwrap(), ibt);
    assert_eq!(of("12.5u3", false), MUTEX);
    assert_eq!(of("15.3u10", false), MUTEX);
    assert_eq!(of("15.4u10", false), KALLSYMS);
    assert_eq!(of("15.5rtu40", false), KALLSYMS);
    for reloc in ["15.6u1", "15.6rtu2", "6.0u1", "16.0u0"] {
        assert_eq!(of(reloc, false), Flavour::SuseReloc);
    }
    assert_eq!(of("15.5u40", true), Flavour::SuseReloc);
    assert_eq!(of("debian12-6.1.0-50", false), Flavour::Upstream);
    assert_eq!(of("debian12-6.12.117+deb12", true), Flavour::Upstream);
}

#[test]
fn messages_are_as_klp_build_users_know_them() {
    let name: LivepatchName = "bsc1197597".parse().unwrap();
    let cve: Cve = "2022-1048".parse().unwrap();
    let upstream = [
        "92ee3c60ec9f (\"ALSA: pcm: one\")".to_owned(),
        "dca947d4d26d (\"two\nlines\")".to_owned(),
    ];
    let author = author();
    let message = |title, upstream| {
        commit_message(&Commit {
            name: &name,
            cve: Some(&cve),
            title,
            upstream,
            author: &author,
        })
    };
    insta::assert_snapshot!(message("VUL-0: kernel: race", &upstream), @r#"
    Fix for CVE-2022-1048 ("VUL-0: kernel: race")

    Live patch for CVE-2022-1048. Upstream commits:
    - 92ee3c60ec9f ("ALSA: pcm: one")
    - dca947d4d26d ("two lines")

    KLP: CVE-2022-1048
    References: bsc#1197597 CVE-2022-1048
    Signed-off-by: Ada Example <ada@example.org>
    "#);
    assert!(message("", &upstream[..1]).starts_with("Fix for CVE-2022-1048\n"));
    assert!(message("", &upstream[..1]).contains("Upstream commit:\n"));

    let written = BTreeMap::from([
        ("a.c".to_owned(), "one\ntwo\n".to_owned()),
        ("b.c".to_owned(), "same\n".to_owned()),
    ]);
    let mut edited = written.clone();
    assert_eq!(manual_work(&written, &edited), "None\n");
    edited.insert("a.c".into(), "one\nthree\n".into());
    edited.insert("c.h".into(), "new\n".into());
    let group = GroupSummary {
        codestreams: "15.6u9-11 15.7u0".into(),
        targets: vec![(
            "sound/core/pcm.c".parse().unwrap(),
            object("snd-pcm"),
            ["f", "g"].map(|f| f.parse().unwrap()).into(),
        )],
    };
    let letter = cover_letter(&CoverLetter {
        name: &name,
        cve: Some(&cve),
        author: &author,
        date: "Thu, 26 Nov 2026 01:00:00 +0000",
        version: 2,
        patches: 12,
        upstream: &upstream,
        archs: &BTreeSet::from([X86_64, S390x]),
        patched: "15.6u12",
        affected: "15.6u9-11 15.7u0",
        groups: &[group],
        manual_work: &manual_work(&written, &edited),
    });
    insta::assert_snapshot!("cover_letter", letter);
}

proptest! {
    /// Each architecture that has a file has exactly one line of each of its functions, with its own object and position.
    #[test]
    fn each_architecture_replaces_each_function_once(
        places in proptest::collection::btree_map(proptest::sample::select(Arch::ALL.to_vec()), (0..3u32, 0..3u32), 1..5),
    ) {
        let archs: Vec<_> = places
            .iter()
            .map(|(arch, (holder, position))| {
                let holder = ["vmlinux", "a", "b-c"][*holder as usize];
                (*arch, facts(holder, &[("f", *position)]))
            })
            .collect();
        let mut file = file("a/b.c", "CONFIG_A", &archs);
        file.patched = vec![patched("f", "int klpp_f(void);")];
        let lines = functions::replaced(&[file], &Arch::ALL.into());
        for (arch, facts) in archs {
            let word = condition::any_of(&BTreeSet::from([arch]));
            let own: Vec<_> = lines
                .iter()
                .filter(|line| {
                    let condition = line.condition.as_deref().unwrap_or_default();
                    condition.contains(&word) || !condition.contains("defined")
                })
                .collect();
            prop_assert_eq!(own.len(), 1);
            prop_assert_eq!(&own[0].object, &facts.object.as_loaded());
            prop_assert_eq!(own[0].sympos, facts.functions[&"f".parse::<FunctionName>().unwrap()]);
        }
    }
}
