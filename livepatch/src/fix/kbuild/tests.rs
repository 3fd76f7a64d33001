//! Which objects a file becomes part of, by made-up makefiles.

use proptest::prelude::*;

use super::*;

fn found(file: &str, makefiles: &[(&str, &str)]) -> Kbuild {
    let read = |path: &str| {
        makefiles
            .iter()
            .find(|(p, _)| *p == path)
            .map(|(_, text)| (*text).to_owned())
    };
    find(&file.parse().unwrap(), &read)
}

type Shown<'k> = (Option<&'k str>, Vec<&'k str>, Option<&'k str>);

fn shown(kbuild: &Kbuild) -> Vec<Shown<'_>> {
    kbuild
        .built
        .iter()
        .map(|b| {
            (
                b.config.as_ref().map(ConfigName::as_str),
                b.also.iter().map(ConfigName::as_str).collect(),
                b.module.as_deref(),
            )
        })
        .collect()
}

const SOUND: &[(&str, &str)] = &[
    ("Kbuild", "obj-$(CONFIG_SOUND) += sound/\nobj-y += fs/\n"),
    ("sound/Makefile", "obj-$(CONFIG_SND_CORE) += core/ # the middle layer\n"),
    (
        "sound/core/Makefile",
        "snd-pcm-y := pcm.o \\\n\tpcm_lib.o\nsnd-pcm-$(CONFIG_SND_DMA) += pcm_memory.o\nobj-$(CONFIG_SND_PCM)\t+= snd-pcm.o\n",
    ),
    (
        "fs/Makefile",
        "obj-y := open.o read_write.o\nobj-$(CONFIG_EXT4_FS) += ext4/\n",
    ),
    (
        "fs/ext4/Makefile",
        "obj-$(CONFIG_EXT4_FS) += ext4.o\next4-objs := balloc.o sub/deep.o\n",
    ),
];

#[test]
fn a_part_of_a_module() {
    let pcm = found("sound/core/pcm.c", SOUND);
    assert_eq!(
        shown(&pcm),
        [(
            Some("CONFIG_SND_PCM"),
            vec!["CONFIG_SND_CORE", "CONFIG_SOUND"],
            Some("sound/core/snd-pcm")
        )]
    );
    assert_eq!(pcm.built[0].object().as_str(), "snd-pcm");
    let memory = found("sound/core/pcm_memory.c", SOUND);
    assert!(memory.built[0].also.iter().any(|c| c.as_str() == "CONFIG_SND_DMA"));
}

#[test]
fn always_built_in_and_folders_without_a_makefile() {
    assert_eq!(shown(&found("fs/open.c", SOUND)), [(None, vec![], None)]);
    assert_eq!(
        shown(&found("fs/ext4/sub/deep.c", SOUND)),
        [(Some("CONFIG_EXT4_FS"), vec![], Some("fs/ext4/ext4"))]
    );
}

#[test]
fn several_answers_and_unknown_ones() {
    let makefiles = [
        ("Makefile", "obj-y += d/\n"),
        (
            "d/Makefile",
            "obj-$(CONFIG_A) += a.o\nobj-$(CONFIG_B) += b.o\na-y := x.o\nb-y := x.o y.o\nobj-$(subst m,y,$(CONFIG_C)) += v.o\nobj-$(if $(CONFIG_C),y) += z.o\nmmu-$(CONFIG_M) := m.o\nobj-y += $(mmu-y)\n",
        ),
    ];
    assert_eq!(
        shown(&found("d/x.c", &makefiles)),
        [
            (Some("CONFIG_A"), vec![], Some("d/a")),
            (Some("CONFIG_B"), vec![], Some("d/b"))
        ]
    );
    let computed = found("d/z.c", &makefiles);
    assert!(
        computed.built.is_empty() && computed.unclear[0].contains("d/Makefile:6"),
        "{computed:?}"
    );
    // A list that another list takes in.
    let taken_in = found("d/m.c", &makefiles);
    assert_eq!(shown(&taken_in), [(None, vec!["CONFIG_M"], None)]);
    assert_eq!(shown(&found("d/v.c", &makefiles)), [(Some("CONFIG_C"), vec![], None)]);
    let unknown = found("d/w.c", &makefiles);
    assert!(
        unknown.built.is_empty() && unknown.unclear[0].contains("no Makefile builds d/w.c"),
        "{unknown:?}"
    );
    assert!(found("d/x.h", &makefiles).unclear[0].contains("not compiled by itself"));
}

#[test]
fn a_folder_built_in_takes_its_config_from_above() {
    let makefiles = [
        ("Kbuild", "obj-$(CONFIG_NET) += net/\n"),
        ("net/Makefile", "obj-$(CONFIG_INET) += ipv4/\n"),
        ("net/ipv4/Makefile", "obj-y := tcp.o\n"),
    ];
    assert_eq!(
        shown(&found("net/ipv4/tcp.c", &makefiles)),
        [(Some("CONFIG_INET"), vec!["CONFIG_NET"], None)]
    );
}

#[test]
fn rules_in_a_circle_end() {
    let makefiles = [("d/Makefile", "a-y := b.o\nb-y := a.o\n")];
    let circle = found("d/a.c", &makefiles);
    assert!(
        circle.built.is_empty() && circle.unclear[0].contains("too far"),
        "{circle:?}"
    );
}

#[test]
fn lists_that_all_take_one_another_in_end_soon() {
    let objects: String = (0..30).map(|i| format!("x{i}.o ")).collect();
    let makefile: String = (0..30).map(|i| format!("x{i}-y := {objects}\n")).collect();
    let tangle = found("d/x0.c", &[("d/Makefile", &makefile)]);
    assert!(tangle.built.is_empty());
    assert!(
        tangle.unclear.iter().any(|why| why.contains("too many rules")),
        "{tangle:?}"
    );
}

proptest! {
    #[test]
    fn no_makefile_is_too_much(text in "(obj-y|a-objs|b-y|obj-\\$\\(CONFIG_A\\)| \\+= |a\\.o |b\\.o |\\\\|\n|\t|#|.){0,60}") {
        let _ = find(&"d/a.c".parse().unwrap(), &|_| Some(text.clone()));
    }
}
