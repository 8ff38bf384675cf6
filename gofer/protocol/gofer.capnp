@0xd3a1c5f09b7e2468;
# The file channel between a sentry (client) and its gofer (server). See gofer/README.md for what the
# operations mean; messages.h holds the same structures in plain C++. Numbers, flags and errors are
# those of Linux on x86-64. Both ends come from one build: there is no version negotiation.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("gofer::schema");

struct Attributes {
  dev @0 :UInt64;
  ino @1 :UInt64;
  rdev @2 :UInt64;
  size @3 :UInt64;
  blocks @4 :UInt64;
  mode @5 :UInt32;
  nlink @6 :UInt32;
  uid @7 :UInt32;
  gid @8 :UInt32;
  blksize @9 :UInt32;
  atimeNs @10 :UInt32;
  mtimeNs @11 :UInt32;
  ctimeNs @12 :UInt32;
  btimeNs @13 :UInt32;
  atime @14 :Int64;
  mtime @15 :Int64;
  ctime @16 :Int64;
  btime @17 :Int64;
}

struct WalkStep {
  name @0 :Data;
  fid @1 :UInt32;
}

struct Request {
  id @0 :UInt32;
  union {
    attach :group {
      name @1 :Data;
      fid @2 :UInt32;
    }
    walk :group {
      from @3 :UInt32;
      steps @4 :List(WalkStep);
      openLast @5 :Bool;
      openFlags @6 :UInt32;
    }
    getAttr :group {
      fid @7 :UInt32;
    }
    setAttr :group {
      fid @8 :UInt32;
      mask @9 :UInt32;
      mode @10 :UInt32;
      uid @11 :UInt32;
      gid @12 :UInt32;
      size @13 :UInt64;
      atime @14 :Int64;
      atimeNs @15 :UInt32;
      mtime @16 :Int64;
      mtimeNs @17 :UInt32;
    }
    open :group {
      fid @18 :UInt32;
      flags @19 :UInt32;
    }
    make :group {
      dir @20 :UInt32;
      name @21 :Data;
      fid @22 :UInt32;
      mode @23 :UInt32;
      uid @24 :UInt32;
      gid @25 :UInt32;
      target @26 :Data;
      open @27 :Bool;
      openFlags @28 :UInt32;
    }
    link :group {
      fid @29 :UInt32;
      dir @30 :UInt32;
      name @31 :Data;
    }
    unlink :group {
      dir @32 :UInt32;
      name @33 :Data;
      flags @34 :UInt32;
    }
    rename :group {
      oldDir @35 :UInt32;
      oldName @36 :Data;
      newDir @37 :UInt32;
      newName @38 :Data;
      flags @39 :UInt32;
    }
    readLink :group {
      fid @40 :UInt32;
    }
    readDir :group {
      fid @41 :UInt32;
      cookie @42 :UInt64;
      entriesMax @43 :UInt32;
      withAttributes @44 :Bool;
      path @56 :List(Data);
      newFid @57 :UInt32;
    }
    statFs :group {
      fid @45 :UInt32;
    }
    xattr :group {
      fid @46 :UInt32;
      action @47 :UInt8;
      name @48 :Data;
      value @49 :Data;
      flags @50 :UInt32;
    }
    fsync :group {
      fid @51 :UInt32;
      scope @52 :UInt8;
    }
    connect :group {
      fid @53 :UInt32;
      type @54 :UInt32;
    }
    clunk :group {
      fids @55 :List(UInt32);
    }
  }
}

struct DirEntry {
  ino @0 :UInt64;
  cookie @1 :UInt64;
  type @2 :UInt8;
  name @3 :Data;
  attributes @4 :Attributes;
}

struct Response {
  id @0 :UInt32;
  error @1 :Int32;
  donated @2 :Bool;
  union {
    none @3 :Void;
    attributes @4 :Attributes;
    walk :group {
      steps @5 :List(Attributes);
      stopError @6 :Int32;
      openError @7 :Int32;
      linkTarget @8 :Data;
    }
    directory :group {
      entries @9 :List(DirEntry);
      end @10 :Bool;
      attributes @26 :Attributes;
    }
    statFs :group {
      type @11 :UInt64;
      blockSize @12 :UInt64;
      blocks @13 :UInt64;
      blocksFree @14 :UInt64;
      blocksAvailable @15 :UInt64;
      files @16 :UInt64;
      filesFree @17 :UInt64;
      nameBytesMax @18 :UInt64;
      fragmentSize @19 :UInt64;
      flags @20 :UInt64;
      fsid @21 :UInt64;
    }
    data @22 :Data;
    change :group {
      object @23 :Attributes;
      dir @24 :Attributes;
      newDir @25 :Attributes;
    }
  }
}
