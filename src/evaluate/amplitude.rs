//! stub
#![allow(missing_docs)]
#[derive(Debug)] pub struct FlagSet;
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct FlagSetError;
#[derive(Debug)] pub struct Problem{pub flag:String}
impl std::fmt::Display for Problem { fn fmt(&self,_f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{Ok(())} }
#[derive(Debug)] pub struct FlagText<'a>{pub key:&'a str,pub text:&'a [u8],pub definition:u128}
impl FlagSet { pub fn compile(_:&[u8])->Result<Self,FlagSetError>{Ok(Self)} pub fn problems(&self)->&[Problem]{&[]} pub fn flags(&self)->impl Iterator<Item=FlagText<'_>>{std::iter::empty()} pub fn revision(&self)->u128{0} pub fn len(&self)->usize{0} }
