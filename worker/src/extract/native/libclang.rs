//! The few parts of libclang's C interface the backend needs, as safe wrappers; the library is loaded at run time.
#![expect(unsafe_code, reason = "libclang's C interface")]
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use clang_sys::*;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::extract::Error;

/// A handle that proves libclang is loaded on this thread.
pub struct Library {
    // clang-sys keeps the library in a thread local; a Library must stay on the thread that loaded it.
    _thread: PhantomData<*const ()>,
}

impl Library {
    /// Loads the newest libclang found (`LIBCLANG_PATH` overrides the search).
    pub fn load() -> Result<Self, Error> {
        if !is_loaded() {
            let library = load_manually().map_err(not_loaded)?;
            set_library(Some(Arc::new(library)));
        }
        Ok(Self { _thread: PhantomData })
    }

    /// libclang's own version line.
    pub fn version(&self) -> String {
        // SAFETY: the library is loaded; the string is owned by us and disposed of once.
        unsafe { take(clang_getClangVersion()) }
    }
}

/// The dynamic linker calls it a failure to map where memory is limited; elsewhere the library itself is amiss.
fn not_loaded(why: String) -> Error {
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((limit, _)) if limit != RLIM_INFINITY && why.contains("failed to map") => Error::NoRoom { limit },
        _ => Error::LibclangMissing {
            searched: searched(),
            why,
        },
    }
}

/// The places the search looks at, for the error message.
fn searched() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if places.is_empty() {
        places.extend(
            [
                "/usr/lib/llvm-*/lib",
                "/usr/lib/*-linux-gnu",
                "/usr/lib64",
                "/usr/local/lib",
            ]
            .map(PathBuf::from),
        );
    }
    places
}

/// # Safety
/// `string` must be an undisposed string of libclang's.
unsafe fn take(string: CXString) -> String {
    // SAFETY: the caller answers for it.
    unsafe {
        let chars = clang_getCString(string);
        let owned = if chars.is_null() {
            String::new()
        } else {
            CStr::from_ptr(chars).to_string_lossy().into_owned()
        };
        clang_disposeString(string);
        owned
    }
}

/// One parsed translation unit.
pub struct Tu<'l> {
    index: CXIndex,
    unit: CXTranslationUnit,
    _library: PhantomData<&'l Library>,
}

impl Drop for Tu<'_> {
    fn drop(&mut self) {
        // SAFETY: both were created by parse() and are disposed of once.
        unsafe {
            clang_disposeTranslationUnit(self.unit);
            clang_disposeIndex(self.index);
        }
    }
}

/// A diagnostic of severity error or worse.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub text: String,
}

impl<'l> Tu<'l> {
    /// Parses with `args` (compiler's name first); the working directory is given by `-working-directory`. `instead`: the text
    /// to read in place of a file's own.
    pub fn parse(_library: &'l Library, args: &[String], instead: Option<(&str, &str)>) -> Result<Self, String> {
        let args: Vec<CString> = args
            .iter()
            .map(|a| CString::new(a.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|_| "an argument holds a NUL byte".to_owned())?;
        let name =
            CString::new(instead.map_or("", |(name, _)| name)).map_err(|_| "a path holds a NUL byte".to_owned())?;
        let text = instead.map_or("", |(_, text)| text);
        let mut unsaved = CXUnsavedFile {
            Filename: name.as_ptr(),
            Contents: text.as_ptr().cast::<c_char>(),
            Length: text.len() as _,
        };
        let pointers: Vec<*const c_char> = args.iter().map(|a| a.as_ptr()).collect();
        let options = CXTranslationUnit_DetailedPreprocessingRecord | CXTranslationUnit_KeepGoing;
        // SAFETY: all pointers live across the call; the results are owned by the returned value.
        unsafe {
            let index = clang_createIndex(0, 0);
            let mut unit: CXTranslationUnit = ptr::null_mut();
            let code = clang_parseTranslationUnit2FullArgv(
                index,
                ptr::null(),
                pointers.as_ptr(),
                pointers.len() as c_int,
                &mut unsaved,
                u32::from(instead.is_some()),
                options,
                &mut unit,
            );
            if code != CXError_Success || unit.is_null() {
                clang_disposeIndex(index);
                return Err(format!("libclang's parser failed with code {code}"));
            }
            Ok(Self {
                index,
                unit,
                _library: PhantomData,
            })
        }
    }

    /// Errors (not warnings) the parse reported, at most `limit`. Which operands the assembler takes (gcc's constraints, of
    /// which clang knows fewer) is no matter of a parse, and the statement is kept.
    pub fn errors(&self, limit: usize) -> Vec<Diagnostic> {
        let mut out = Vec::new();
        // SAFETY: the unit is alive; each diagnostic is disposed of once.
        unsafe {
            for i in 0..clang_getNumDiagnostics(self.unit) {
                let d = clang_getDiagnostic(self.unit, i);
                if clang_getDiagnosticSeverity(d) >= CXDiagnostic_Error && out.len() < limit {
                    let text = take(clang_formatDiagnostic(d, clang_defaultDiagnosticDisplayOptions()));
                    if !is_about_constraint(&text) {
                        out.push(Diagnostic { text });
                    }
                }
                clang_disposeDiagnostic(d);
            }
        }
        out
    }

    pub fn root(&self) -> Cursor<'_> {
        Cursor {
            // SAFETY: the unit is alive.
            raw: unsafe { clang_getTranslationUnitCursor(self.unit) },
            _tu: PhantomData,
        }
    }

    /// The ranges the preprocessor skipped in `file`, as byte offsets, each with the entry of the file it belongs to.
    pub fn skipped(&self, file: FileHandle) -> Vec<(Entry, u32, u32)> {
        // SAFETY: the unit and the file in it are alive; the list is handed over.
        let ranges = unsafe { ranges(clang_getSkippedRanges(self.unit, file.0)) };
        ranges
            .into_iter()
            .map(|(_, entry, start, end)| (entry, start, end))
            .collect()
    }

    /// All ranges the preprocessor skipped, in whichever file.
    pub fn all_skipped(&self) -> Vec<(FileHandle, Entry, u32, u32)> {
        // SAFETY: the unit is alive; the list is handed over.
        unsafe { ranges(clang_getAllSkippedRanges(self.unit)) }
    }

    /// Calls `f(included file, the include directives that lead to it, innermost first)` for every inclusion in order.
    pub fn inclusions(&self, mut f: impl FnMut(FileHandle, &[Place])) {
        type Callback<'a> = &'a mut dyn FnMut(FileHandle, &[Place]);
        extern "C" fn call(file: CXFile, stack: *mut CXSourceLocation, len: c_uint, data: CXClientData) {
            // SAFETY: data is the &mut of the closure below, used only during the call; the stack has len entries.
            unsafe {
                let f = &mut *data.cast::<Callback<'_>>();
                let chain: Vec<Place> = (0..len as usize)
                    .filter_map(|i| match spelling(*stack.add(i)) {
                        (Some(file), offset) => Some(Place { file, offset }),
                        (None, _) => None,
                    })
                    .collect();
                f(FileHandle(file), &chain);
            }
        }
        let mut dynamic: Callback<'_> = &mut f;
        // SAFETY: the callback runs only during this call.
        unsafe { clang_getInclusions(self.unit, call, ptr::from_mut(&mut dynamic).cast::<c_void>()) }
    }
}

/// What a list of ranges holds; it is disposed of.
///
/// # Safety
/// The list is libclang's, or null, and of a unit that is alive.
unsafe fn ranges(list: *mut CXSourceRangeList) -> Vec<(FileHandle, Entry, u32, u32)> {
    let mut out = Vec::new();
    // SAFETY: the list is disposed of once, ranges are read while it lives.
    unsafe {
        if list.is_null() {
            return out;
        }
        for i in 0..(*list).count {
            let range = *(*list).ranges.add(i as usize);
            let start = clang_getRangeStart(range);
            if let (Some(file), a) = spelling(start) {
                let (_, b) = spelling(clang_getRangeEnd(range));
                out.push((file, Entry(start.int_data.wrapping_sub(a)), a, b));
            }
        }
        clang_disposeSourceRangeList(list);
    }
    out
}

fn is_about_constraint(text: &str) -> bool {
    ["invalid input constraint '", "invalid output constraint '"]
        .iter()
        .any(|words| text.contains(words))
}

/// One entry into a file: a header read twice has two. Ordered as they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u32);

/// libclang's identity of a file within one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileHandle(CXFile);

impl FileHandle {
    /// The name the compiler was given or built for this file.
    pub fn name(self) -> String {
        // SAFETY: handles come from a live unit.
        unsafe { take(clang_getFileName(self.0)) }
    }
}

/// # Safety
/// `location` must belong to a live unit.
unsafe fn spelling(location: CXSourceLocation) -> (Option<FileHandle>, u32) {
    let mut file: CXFile = ptr::null_mut();
    let mut offset: c_uint = 0;
    // SAFETY: the caller answers for it.
    unsafe { clang_getSpellingLocation(location, &mut file, ptr::null_mut(), ptr::null_mut(), &mut offset) };
    ((!file.is_null()).then_some(FileHandle(file)), offset)
}

/// # Safety
/// `location` must belong to a live unit.
unsafe fn expansion(location: CXSourceLocation) -> (Option<FileHandle>, u32) {
    let mut file: CXFile = ptr::null_mut();
    let mut offset: c_uint = 0;
    // SAFETY: the caller answers for it.
    unsafe { clang_getExpansionLocation(location, &mut file, ptr::null_mut(), ptr::null_mut(), &mut offset) };
    ((!file.is_null()).then_some(FileHandle(file)), offset)
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub file: FileHandle,
    pub offset: u32,
}

#[derive(Clone, Copy)]
pub struct Cursor<'t> {
    raw: CXCursor,
    _tu: PhantomData<&'t ()>,
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        // SAFETY: both belong to a live unit.
        unsafe { clang_equalCursors(self.raw, other.raw) != 0 }
    }
}

/// What a visitor wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Sibling,
    Children,
    Stop,
}

impl<'t> Cursor<'t> {
    fn wrap(raw: CXCursor) -> Option<Self> {
        // SAFETY: a pure predicate on the value.
        (unsafe { clang_Cursor_isNull(raw) } == 0).then_some(Self { raw, _tu: PhantomData })
    }

    pub fn kind(self) -> CXCursorKind {
        self.raw.kind
    }

    /// True for the translation unit itself, whose kind is 300 up to LLVM 14 and 350 since.
    pub fn is_unit(self) -> bool {
        matches!(self.raw.kind, 300 | 350)
    }

    pub fn name(self) -> String {
        // SAFETY: the cursor's unit is alive by 't.
        unsafe { take(clang_getCursorSpelling(self.raw)) }
    }

    /// Where the token at the cursor's location is written (inside a macro's body, if it comes from one).
    pub fn spelled_at(self) -> Option<Place> {
        // SAFETY: as above.
        let (file, offset) = unsafe { spelling(clang_getCursorLocation(self.raw)) };
        file.map(|file| Place { file, offset })
    }

    /// Where the outermost macro use that yields the cursor's location is, or the location itself.
    pub fn expanded_at(self) -> Option<Place> {
        // SAFETY: as above.
        let (file, offset) = unsafe { expansion(clang_getCursorLocation(self.raw)) };
        file.map(|file| Place { file, offset })
    }

    /// The entry of its file the cursor is in; None if its location comes from a macro.
    pub fn entry(self) -> Option<Entry> {
        // SAFETY: as above. A SourceLocation's top bit marks macro locations; below it, locations of one file entry are
        // its base plus the byte offset.
        unsafe {
            let location = clang_getCursorLocation(self.raw);
            let (_, offset) = spelling(location);
            (location.int_data >> 31 == 0).then(|| Entry(location.int_data.wrapping_sub(offset)))
        }
    }

    /// The file an inclusion directive includes.
    pub fn included(self) -> Option<FileHandle> {
        // SAFETY: as above.
        let file = unsafe { clang_getIncludedFile(self.raw) };
        (!file.is_null()).then_some(FileHandle(file))
    }

    /// The extent in the file (macro uses counted whole), end exclusive.
    pub fn extent(self) -> Option<(Place, u32)> {
        // SAFETY: as above.
        unsafe {
            let range = clang_getCursorExtent(self.raw);
            let (file, start) = expansion(clang_getRangeStart(range));
            let (end_file, end) = expansion(clang_getRangeEnd(range));
            let file = file?;
            (end_file == Some(file)).then_some((Place { file, offset: start }, end))
        }
    }

    /// Visits the children as `f(child, parent)`; return [`Next::Children`] to descend.
    pub fn visit(self, mut f: impl FnMut(Cursor<'t>, Cursor<'t>) -> Next) {
        type Callback<'a, 't> = &'a mut dyn FnMut(Cursor<'t>, Cursor<'t>) -> Next;
        extern "C" fn call(raw: CXCursor, parent: CXCursor, data: CXClientData) -> CXChildVisitResult {
            // SAFETY: data is the &mut of the closure below, used only during the call.
            let f = unsafe { &mut *data.cast::<Callback<'_, '_>>() };
            match f(
                Cursor { raw, _tu: PhantomData },
                Cursor {
                    raw: parent,
                    _tu: PhantomData,
                },
            ) {
                Next::Sibling => CXChildVisit_Continue,
                Next::Children => CXChildVisit_Recurse,
                Next::Stop => CXChildVisit_Break,
            }
        }
        let mut dynamic: Callback<'_, 't> = &mut f;
        // SAFETY: the callback runs only during this call.
        unsafe {
            clang_visitChildren(self.raw, call, ptr::from_mut(&mut dynamic).cast::<c_void>());
        }
    }

    pub fn children(self) -> Vec<Cursor<'t>> {
        let mut out = Vec::new();
        self.visit(|c, _| {
            out.push(c);
            Next::Sibling
        });
        out
    }

    /// What the cursor refers to.
    pub fn referenced(self) -> Option<Cursor<'t>> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getCursorReferenced(self.raw) })
    }

    pub fn definition(self) -> Option<Cursor<'t>> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getCursorDefinition(self.raw) })
    }

    pub fn is_definition(self) -> bool {
        // SAFETY: as above.
        unsafe { clang_isCursorDefinition(self.raw) != 0 }
    }

    pub fn canonical(self) -> Option<Cursor<'t>> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getCanonicalCursor(self.raw) })
    }

    pub fn parent(self) -> Option<Cursor<'t>> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getCursorSemanticParent(self.raw) })
    }

    pub fn is_inline(self) -> bool {
        // SAFETY: as above.
        unsafe { clang_Cursor_isFunctionInlined(self.raw) != 0 }
    }

    pub fn storage(self) -> Storage {
        // SAFETY: as above.
        match unsafe { clang_Cursor_getStorageClass(self.raw) } {
            CX_SC_Static => Storage::Static,
            CX_SC_Extern => Storage::Extern,
            _ => Storage::Other,
        }
    }

    pub fn ty(self) -> Type<'t> {
        Type {
            // SAFETY: as above.
            raw: unsafe { clang_getCursorType(self.raw) },
            _tu: PhantomData,
        }
    }

    /// Parameter declarations of a function.
    pub fn params(self) -> Vec<Cursor<'t>> {
        // SAFETY: as above; a negative count means "not a function".
        unsafe {
            let n = clang_Cursor_getNumArguments(self.raw);
            (0..n.max(0))
                .filter_map(|i| Self::wrap(clang_Cursor_getArgument(self.raw, i as c_uint)))
                .collect()
        }
    }

    /// The type a typedef stands for.
    pub fn underlying(self) -> Type<'t> {
        Type {
            // SAFETY: as above.
            raw: unsafe { clang_getTypedefDeclUnderlyingType(self.raw) },
            _tu: PhantomData,
        }
    }

    /// An enumeration constant's value.
    pub fn enum_value(self) -> i64 {
        // SAFETY: as above.
        unsafe { clang_getEnumConstantDeclValue(self.raw) }
    }

    /// Where a member is in its structure, in bits; negative where it has no place.
    pub fn field_offset(self) -> i64 {
        // SAFETY: as above.
        unsafe { clang_Cursor_getOffsetOfField(self.raw) }
    }

    /// A bit field's width; negative for other members.
    pub fn bit_width(self) -> i32 {
        // SAFETY: as above.
        unsafe { clang_getFieldDeclBitWidth(self.raw) }
    }

    pub fn is_anonymous(self) -> bool {
        // SAFETY: as above.
        unsafe { clang_Cursor_isAnonymous(self.raw) != 0 }
    }

    /// libclang's pretty print of the declaration.
    pub fn pretty(self) -> String {
        // SAFETY: as above; the policy is disposed of once.
        unsafe {
            let policy = clang_getCursorPrintingPolicy(self.raw);
            let text = take(clang_getCursorPrettyPrinted(self.raw, policy));
            clang_PrintingPolicy_dispose(policy);
            text
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    Static,
    Extern,
    Other,
}

#[derive(Clone, Copy)]
pub struct Type<'t> {
    raw: CXType,
    _tu: PhantomData<&'t ()>,
}

impl<'t> Type<'t> {
    fn wrap(raw: CXType) -> Option<Self> {
        (raw.kind != CXType_Invalid).then_some(Self { raw, _tu: PhantomData })
    }

    pub fn kind(self) -> CXTypeKind {
        self.raw.kind
    }

    pub fn spelling(self) -> String {
        // SAFETY: the type's unit is alive by 't.
        unsafe { take(clang_getTypeSpelling(self.raw)) }
    }

    /// Size and alignment in bytes; negative where the type has none.
    pub fn extent(self) -> (i64, i64) {
        // SAFETY: as above.
        unsafe { (clang_Type_getSizeOf(self.raw), clang_Type_getAlignOf(self.raw)) }
    }

    pub fn pointee(self) -> Option<Self> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getPointeeType(self.raw) })
    }

    pub fn element(self) -> Option<Self> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getArrayElementType(self.raw) })
    }

    pub fn result(self) -> Option<Self> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_getResultType(self.raw) })
    }

    /// The types of a function's parameters.
    pub fn args(self) -> Vec<Self> {
        // SAFETY: as above; a negative count means "not a function".
        unsafe {
            let n = clang_getNumArgTypes(self.raw);
            (0..n.max(0))
                .filter_map(|i| Self::wrap(clang_getArgType(self.raw, i as c_uint)))
                .collect()
        }
    }

    pub fn is_variadic(self) -> bool {
        // SAFETY: as above.
        unsafe { clang_isFunctionTypeVariadic(self.raw) != 0 }
    }

    pub fn is_const(self) -> bool {
        // SAFETY: as above.
        unsafe { clang_isConstQualifiedType(self.raw) != 0 }
    }

    pub fn canonical(self) -> Self {
        Self {
            // SAFETY: as above.
            raw: unsafe { clang_getCanonicalType(self.raw) },
            _tu: PhantomData,
        }
    }

    pub fn named(self) -> Option<Self> {
        // SAFETY: as above.
        Self::wrap(unsafe { clang_Type_getNamedType(self.raw) })
    }

    pub fn declaration(self) -> Option<Cursor<'t>> {
        // SAFETY: as above.
        let c = Cursor::wrap(unsafe { clang_getTypeDeclaration(self.raw) })?;
        (c.kind() != CXCursor_NoDeclFound).then_some(c)
    }
}
